/**
 * The delivery report as customers see it: one item of GET /mms/2/reports and of a delivery webhook. Both give exactly what
 * this function makes, so a report reads the same however it is had.
 *
 * Promises: pure; members in the published order; all but `mccMnc`, `callbackData`, `platform` and `campaignReferenceId` always
 * present (strict clients read them unasked); instants in the only form that all of them parse (three digits of ms, `+0000`).
 *
 * Fails: a status or error outside the tables is a bug and throws RangeError (`domain/codes.ts`).
 */
import { type ErrorView, errorView, type StatusView, statusView } from './codes.ts';
import { smsSegmentsOf } from './failover.ts';
import type { Ids } from './ids.ts';
import type { Spec } from './message.ts';
import type { Networks } from './networks.ts';
import { isFree, priceOf } from './prices.ts';
import type { EventRow, MessageRow, SpecRow } from './rows.ts';
import { formatInstant } from './schedule.ts';
import { STATE, STATUS_CLAIMED } from './status.ts';

/** Price of one message (not of a whole report); 0 where the operator's list has none. */
export interface Price {
  pricePerMessage: number;
  currency: string;
}

/** Ids that the request carried in `options.platform`. */
export interface Platform {
  entityId?: string;
  applicationId?: string;
}

/** One report. Source: Infobip MMS API v2, "Get outbound MMS message delivery reports" and its webhook. */
export interface DeliveryReport {
  bulkId: string;
  price: Price;
  status: StatusView;
  error: ErrorView;
  messageId: string;
  to: string;
  sender: string;
  /** The first submission, else the acceptance. */
  sentAt: string;
  /** The instant of the status that is told. */
  doneAt: string;
  /** 1 for an MMS, the segments of an SMS. */
  messageCount: number;
  /** Only where the message went as its SMS failover. */
  channel?: 'SMS';
  /** Country and network of the destination, e.g. 22801; absent while nobody has told us. */
  mccMnc?: string;
  callbackData?: string;
  platform?: Platform;
  campaignReferenceId?: string;
}

/** Where no list says otherwise: 0, in the currency of the published examples. */
export const NO_PRICE: Readonly<Price> = Object.freeze({ pricePerMessage: 0, currency: 'EUR' });

/** What one message cost when it was accepted, by the channel that it went; nothing where it was rejected or never left. */
export function priceView(row: Pick<MessageRow, 'leg' | 'to' | 'status' | 'error' | 'sentAt'>, spec: Spec): Price {
  if (spec.prices === undefined) return NO_PRICE;
  const pricePerMessage = isFree(row) ? 0 : priceOf(spec.prices, row.leg === 1 ? 'SMS' : 'MMS', row.to);
  return { pricePerMessage, currency: spec.prices.currency };
}

/** Behind the media type of reports that have the shape of the first version. */
const OLDER = ';v=1';

/**
 * How reports are written for an endpoint: as a media type, in the shape of the version that the message was sent by. One URL may
 * get both; a POST holds one form.
 */
export function reportForm(mediaType: string, older = false): string {
  return older ? mediaType + OLDER : mediaType;
}

/** The two halves of a form. */
export function readForm(form: string): { mediaType: string; older: boolean } {
  const older = form.endsWith(OLDER);
  return { mediaType: older ? form.slice(0, -OLDER.length) : form, older };
}

/** The bulk's id as customers know it: their own, else generated from its number. */
export function bulkIdOf(row: MessageRow, ids: Ids): string {
  return row.bulkId ?? ids.print('bulk', row.bulk);
}

/** The message's id as customers know it: their own, else generated from its number. */
export function messageIdOf(row: MessageRow, ids: Ids): string {
  return row.key ?? ids.print('message', row.no);
}

/** Messages that the destination is charged as: 1 for an MMS, the segments of the text as it left for an SMS. */
export function messageCountOf(row: Pick<MessageRow, 'leg'>, spec: Spec): number {
  return row.leg === 1 ? smsSegmentsOf(spec) : 1;
}

/**
 * The status to show. An event keeps the status it was written with; a message with an open claim is on its way (7), unless a report
 * that overtook the answer has said more.
 */
export function shownStatus(row: EventRow | MessageRow): StatusView {
  const waits = row.state === STATE.pending || row.state === STATE.uncertain;
  const claimed = row.claimed && !('event' in row) && waits;
  return statusView(claimed ? STATUS_CLAIMED : row.status);
}

/** `platform` where the request named an id, else undefined. */
export function platformOf(spec: Spec): Platform | undefined {
  const given = spec.options?.platform;
  if (given?.entityId === undefined && given?.applicationId === undefined) return undefined;
  return {
    ...(given.entityId === undefined ? {} : { entityId: given.entityId }),
    ...(given.applicationId === undefined ? {} : { applicationId: given.applicationId }),
  };
}

/**
 * The report of one event, or of a message as it stands.
 * @param spec `specRow.body`, parsed (the caller parses it once for all messages of a spec)
 * @param networks the operator's number table, where there is one
 */
export function deliveryReport(
  row: EventRow | MessageRow,
  spec: Spec,
  specRow: SpecRow,
  ids: Ids,
  networks?: Networks,
): DeliveryReport {
  const sentAt = row.sentAt ?? row.acceptedAt;
  const report: DeliveryReport = {
    bulkId: bulkIdOf(row, ids),
    price: priceView(row, spec),
    status: shownStatus(row),
    error: errorView(row.error),
    messageId: messageIdOf(row, ids),
    to: row.to,
    sender: specRow.sender,
    sentAt: formatInstant(sentAt),
    doneAt: formatInstant('event' in row ? row.at : (row.doneAt ?? sentAt)),
    messageCount: messageCountOf(row, spec),
  };
  if (row.leg === 1) report.channel = 'SMS';
  const network = networks?.of(row.to) ?? null;
  if (network !== null) report.mccMnc = network;
  const callbackData = spec.webhooks?.callbackData;
  if (callbackData !== undefined) report.callbackData = callbackData;
  const platform = platformOf(spec);
  if (platform !== undefined) report.platform = platform;
  const campaign = spec.options?.campaignReferenceId;
  if (campaign !== undefined) report.campaignReferenceId = campaign;
  return report;
}
