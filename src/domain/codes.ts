/**
 * The closed tables of what a message can be (statuses) and why (errors): Infobip's public ids, names and groups, since
 * integrations compare them. Descriptions are the short ones seen on the wire where known, else our own words.
 *
 * Promises: every id once; the views are made once and frozen, so giving one out costs nothing. Codes are never reused
 * or renamed. Source: Infobip's list of response status and error codes (general and MMS), and older ids (0, 1, 16, 22,
 * 28) that clients may still know; this product never gives those, nor the voice ones (96 to 99).
 *
 * Where that list is ambiguous: 87 stands there twice (expired = charged, rejected = not): here rejected. 4102 stands under
 * user and operator errors: here user. The 15xxx codes have no group there: grouped here by who can mend it (handset
 * or its owner, sender of the message, carrier).
 *
 * Fails: an id outside the tables is a bug and throws RangeError.
 */

/** Names of the status groups by groupId. */
export const STATUS_GROUPS = ['ACCEPTED', 'PENDING', 'UNDELIVERABLE', 'DELIVERED', 'EXPIRED', 'REJECTED'] as const;
export type StatusGroup = (typeof STATUS_GROUPS)[number];

/** Names of the error groups by groupId. */
export const ERROR_GROUPS = ['OK', 'HANDSET_ERRORS', 'USER_ERRORS', 'OPERATOR_ERRORS'] as const;
export type ErrorGroup = (typeof ERROR_GROUPS)[number];

/** A status as answers, reports and logs carry it, members in wire order. */
export interface StatusView {
  readonly groupId: number;
  readonly groupName: StatusGroup;
  readonly id: number;
  readonly name: string;
  readonly description: string;
  readonly action?: string;
}

/** An error as reports and logs carry it, members in wire order. `permanent`: trying the same again cannot help. */
export interface ErrorView {
  readonly groupId: number;
  readonly groupName: ErrorGroup;
  readonly id: number;
  readonly name: string;
  readonly description: string;
  readonly permanent: boolean;
}

/** id, group, name, description, action */
const STATUS_ROWS: [number, number, string, string, string?][] = [
  [0, 0, 'MESSAGE_ACCEPTED', 'Message accepted'],
  [1, 1, 'PENDING_TIME_VIOLATION', 'Time window violation'],
  [2, 3, 'DELIVERED_TO_OPERATOR', 'Message delivered to operator'],
  [3, 1, 'PENDING_WAITING_DELIVERY', 'Message sent, waiting for delivery report'],
  [4, 2, 'UNDELIVERABLE_REJECTED_OPERATOR', 'Message rejected by operator'],
  [5, 3, 'DELIVERED_TO_HANDSET', 'Message delivered to handset'],
  [6, 5, 'REJECTED_NETWORK', 'Network is forbidden', 'Contact account manager'],
  [7, 1, 'PENDING_ENROUTE', 'Message sent to next instance'],
  [8, 5, 'REJECTED_PREFIX_MISSING', 'Number prefix missing'],
  [9, 2, 'UNDELIVERABLE_NOT_DELIVERED', 'Message sent not delivered'],
  [10, 5, 'REJECTED_DND', 'Destination on DND list'],
  [11, 5, 'REJECTED_SOURCE', 'Invalid Source address'],
  [12, 5, 'REJECTED_NOT_ENOUGH_CREDITS', 'Not enough credits'],
  [13, 5, 'REJECTED_SENDER', 'By Sender', 'Remove sender from blacklist'],
  [14, 5, 'REJECTED_DESTINATION_BLOCKLISTED', 'By Destination', 'Remove destination from blacklist'],
  [15, 4, 'EXPIRED_EXPIRED', 'Message expired'],
  [16, 5, 'REJECTED_NOT_REACHABLE', 'Network not reachable'],
  [17, 5, 'REJECTED_PREPAID_PACKAGE_EXPIRED', 'Prepaid package expired', 'Top up the account'],
  [18, 5, 'REJECTED_DESTINATION_NOT_REGISTERED', 'Destination not registered'],
  [19, 5, 'REJECTED_ROUTE_NOT_AVAILABLE', 'Route not available', 'Contact account manager'],
  [20, 5, 'REJECTED_FLOODING_FILTER', 'Rejected flooding'],
  [21, 5, 'REJECTED_SYSTEM_ERROR', 'System error'],
  [22, 4, 'EXPIRED_UNKNOWN', 'Unknown Reason'],
  [23, 5, 'REJECTED_DUPLICATE_MESSAGE_ID', 'Rejected duplicate message ID'],
  [24, 5, 'REJECTED_INVALID_UDH', 'Rejected invalid UDH'],
  [25, 5, 'REJECTED_MESSAGE_TOO_LONG', 'Rejected message too long'],
  [26, 1, 'PENDING_ACCEPTED', 'Message sent to next instance'],
  [28, 5, 'REJECTED_NOT_SENT', 'Message rejected, not sent'],
  [29, 4, 'EXPIRED_DLR_UNKNOWN', 'Message expired, delivery status unknown'],
  [31, 2, 'UNDELIVERABLE_NOT_SENT', 'Message not sent'],
  [51, 5, 'MISSING_TO', 'Destination missing'],
  [52, 5, 'REJECTED_DESTINATION', 'Invalid destination address'],
  [56, 5, 'REJECTED_INVALID_NOTIFY_URL', 'Invalid notify URL'],
  [77, 5, 'REJECTED_MESSAGE_TEXT_TOO_LONG', 'Message text too long'],
  [87, 5, 'SIGNALS_BLOCKED', 'Blocked by anti-fraud'],
  [96, 2, 'NO_ANSWER', 'Call not answered'],
  [97, 2, 'BUSY', 'Destination busy'],
  [98, 2, 'CANCELLED', 'Call cancelled'],
  [99, 5, 'REJECTED', 'Call rejected'],
  [100, 5, 'UNDELIVERABLE_REJECTED_PLATFORM', 'Message rejected by the platform'],
];

/** By group: id, name, permanent, description */
const ERROR_ROWS: [number, string, boolean, string][][] = [
  // 0 OK
  [[0, 'NO_ERROR', false, 'No Error']],
  // 1 HANDSET_ERRORS
  [
    [1, 'EC_UNKNOWN_SUBSCRIBER', true, 'Subscriber unknown to the network'],
    [2, 'EC_UNKNOWN_BASE_STATION', false, 'Unknown base station'],
    [5, 'EC_UNIDENTIFIED_SUBSCRIBER', false, 'Number invalid, unregistered or data incomplete'],
    [6, 'EC_ABSENT_SUBSCRIBER_SM', false, 'Phone unreachable or off'],
    [7, 'EC_UNKNOWN_EQUIPMENT', false, 'Device unknown to equipment register'],
    [8, 'EC_ROAMING_NOT_ALLOWED', false, 'Roaming not covered'],
    [9, 'EC_ILLEGAL_SUBSCRIBER', true, 'Illegal Subscriber'],
    [11, 'EC_TELESERVICE_NOT_PROVISIONED', true, 'Service not in the subscription'],
    [12, 'EC_ILLEGAL_EQUIPMENT', true, 'Device id barred'],
    [13, 'EC_CALL_BARRED', false, 'Subscription suspended by the operator'],
    [21, 'EC_FACILITY_NOT_SUPPORTED', false, 'Facility not supported by phone or network'],
    [27, 'EC_ABSENT_SUBSCRIBER', false, 'Phone unreachable or off'],
    [31, 'EC_SUBSCRIBER_BUSY_FOR_MT_SMS', false, 'Busy for mobile-terminated messages'],
    [32, 'EC_SM_DELIVERY_FAILURE', false, 'Delivery to the phone failed'],
    [33, 'EC_MESSAGE_WAITING_LIST_FULL', false, 'Waiting list full'],
    [34, 'EC_SYSTEM_FAILURE', false, 'System failure'],
    [35, 'EC_DATA_MISSING', false, 'Data missing'],
    [36, 'EC_UNEXPECTED_DATA_VALUE', false, 'Unexpected data value'],
    [255, 'EC_UNKNOWN_ERROR', false, 'Unknown error'],
    [256, 'EC_SM_DF_MEMORYCAPACITYEXCEEDED', false, 'Phone inbox full'],
    [257, 'EC_SM_DF_EQUIPMENTPROTOCOLERROR', false, 'Phone reported a protocol error'],
    [258, 'EC_SM_DF_EQUIPMENTNOTSM_EQUIPPED', false, 'Phone not equipped for short messages'],
    [259, 'EC_SM_DF_UNKNOWNSERVICECENTRE', false, 'Service centre unknown to the phone network'],
    [260, 'EC_SM_DF_SC_CONGESTION', false, 'Service centre congested'],
    [261, 'EC_SM_DF_INVALIDSME_ADDRESS', false, 'Invalid address of the sending entity'],
    [262, 'EC_SM_DF_SUBSCRIBERNOTSC_SUBSCRIBER', false, 'Subscriber not served by this service centre'],
    [500, 'EC_PROVIDER_GENERAL_ERROR', false, 'Network protocol error'],
    [502, 'EC_NO_RESPONSE', false, 'Operator gave no answer'],
    [503, 'EC_SERVICE_COMPLETION_FAILURE', false, 'Network protocol error'],
    [504, 'EC_UNEXPECTED_RESPONSE_FROM_PEER', false, 'Network protocol error'],
    [507, 'EC_MISTYPED_PARAMETER', false, 'Network protocol error'],
    [508, 'EC_NOT_SUPPORTED_SERVICE', false, 'Network protocol error'],
    [509, 'EC_DUPLICATED_INVOKE_ID', false, 'Network protocol error'],
    [565, 'EC_CANNOT_RECEIVE_SC', true, 'MVNO user cannot get short codes'],
    [573, 'EC_SC_BLOCKED_BY_END_USER', true, 'User blocked the short code'],
    [581, 'EC_USER_OUT_OF_CREDIT', false, 'Prepaid credit used up'],
    [628, 'EC_TEMPORARY_HANDSET_FAILURE', true, 'Temporary handset failure'],
    [629, 'EC_DEST_ADDRESS_UNABLE_TO_RECEIVE_SMS', true, 'Address cannot receive SMS'],
    [1024, 'EC_OR_APPCONTEXTNOTSUPPORTED', false, 'Network protocol error'],
    [1025, 'EC_OR_INVALIDDESTINATIONREFERENCE', false, 'Network protocol error'],
    [1026, 'EC_OR_INVALIDORIGINATINGREFERENCE', false, 'Network protocol error'],
    [1027, 'EC_OR_ENCAPSULATEDAC_NOTSUPPORTED', false, 'Network protocol error'],
    [1028, 'EC_OR_TRANSPORTPROTECTIONNOTADEQUATE', false, 'Network protocol error'],
    [1029, 'EC_OR_NOREASONGIVEN', false, 'Network protocol error'],
    [1030, 'EC_OR_POTENTIALVERSIONINCOMPATIBILITY', false, 'Network protocol error'],
    [1031, 'EC_OR_REMOTENODENOTREACHABLE', false, 'Not reachable, operator protocol error'],
    [1152, 'EC_NNR_NOTRANSLATIONFORANADDRESSOFSUCHNATURE', false, 'Not reachable, operator protocol error'],
    [1153, 'EC_NNR_NOTRANSLATIONFORTHISSPECIFICADDRESS', false, 'No translation for this address'],
    [1154, 'EC_NNR_SUBSYSTEMCONGESTION', false, 'Not reachable, operator protocol error'],
    [1155, 'EC_NNR_SUBSYSTEMFAILURE', false, 'Not reachable, operator protocol error'],
    [1156, 'EC_NNR_UNEQUIPPEDUSER', false, 'Not reachable, operator protocol error'],
    [1157, 'EC_NNR_MTPFAILURE', false, 'Not reachable, operator protocol error'],
    [1158, 'EC_NNR_NETWORKCONGESTION', false, 'Not reachable, operator protocol error'],
    [1159, 'EC_NNR_UNQUALIFIED', false, 'Not reachable, operator protocol error'],
    [1160, 'EC_NNR_ERRORINMESSAGETRANSPORTXUDT', false, 'Not reachable, operator protocol error'],
    [1161, 'EC_NNR_ERRORINLOCALPROCESSINGXUDT', false, 'Not reachable, operator protocol error'],
    [1162, 'EC_NNR_DESTINATIONCANNOTPERFORMREASSEMBLYXUDT', false, 'Not reachable, operator protocol error'],
    [1163, 'EC_NNR_SCCPFAILURE', false, 'Not reachable, operator protocol error'],
    [1164, 'EC_NNR_HOPCOUNTERVIOLATION', false, 'Not reachable, operator protocol error'],
    [1165, 'EC_NNR_SEGMENTATIONNOTSUPPORTED', false, 'Not reachable, operator protocol error'],
    [1166, 'EC_NNR_SEGMENTATIONFAILURE', false, 'Not reachable, operator protocol error'],
    [1281, 'EC_UA_USERSPECIFICREASON', false, 'Aborted by a network peer'],
    [1282, 'EC_UA_USERRESOURCELIMITATION', false, 'Aborted by a network peer'],
    [1283, 'EC_UA_RESOURCEUNAVAILABLE', false, 'Aborted by a network peer'],
    [1284, 'EC_UA_APPLICATIONPROCEDURECANCELLATION', false, 'Aborted by a network peer'],
    [1536, 'EC_PA_PROVIDERMALFUNCTION', false, 'Aborted, other protocol error'],
    [1537, 'EC_PA_SUPPORTINGDIALOGORTRANSACTIONREALEASED', false, 'Aborted, other protocol error'],
    [1538, 'EC_PA_RESSOURCELIMITATION', false, 'Aborted, other protocol error'],
    [1539, 'EC_PA_MAINTENANCEACTIVITY', false, 'Aborted, other protocol error'],
    [1540, 'EC_PA_VERSIONINCOMPATIBILITY', false, 'Aborted, other protocol error'],
    [1541, 'EC_PA_ABNORMALMAPDIALOG', false, 'Aborted, other protocol error'],
    [1792, 'EC_NC_ABNORMALEVENTDETECTEDBYPEER', false, 'Aborted, other protocol error'],
    [1793, 'EC_NC_RESPONSEREJECTEDBYPEER', false, 'Aborted, other protocol error'],
    [1794, 'EC_NC_ABNORMALEVENTRECEIVEDFROMPEER', false, 'Aborted, other protocol error'],
    [1795, 'EC_NC_MESSAGECANNOTBEDELIVEREDTOPEER', false, 'Aborted, other protocol error'],
    [1796, 'EC_NC_PROVIDEROUTOFINVOKE', false, 'Aborted, other protocol error'],
    [15003, 'EC_MSISDN_NOT_REGISTERED', true, 'MSISDN not registered'],
    [15004, 'EC_DEFERRED', false, 'Notified but not retrieved yet'],
    [15005, 'EC_MMS_FORWARDED', true, 'Forwarded by the user without retrieval'],
    [15006, 'EC_VALIDITY_EXPIRED', true, 'Validity ended before the handset was reached'],
    [15007, 'EC_CONTENT_CANNOT_BE_DOWNLOADED_ON_HANDSET', true, 'Content cannot be downloaded on handset'],
    [15009, 'EC_RECIPIENT_NOT_FOUND', true, 'Recipient not found'],
    [15012, 'EC_DRM_NOT_SUPPORTED', true, 'DRM not supported'],
    [15017, 'EC_RECIPIENT_DEACTIVATED', true, 'Recipient deactivated'],
    [15018, 'EC_RECIPIENT_SUSPENDED', true, 'Recipient suspended'],
    [15019, 'EC_HANDSET_DOES_NOT_SUPPORT_MMS', true, 'Handset has no MMS'],
  ],
  // 2 USER_ERRORS
  [
    [323, 'EC_INVALID_REQUEST_TYPE', true, 'Request type invalid'],
    [351, 'EC_INVALID_DESTINATION_ADDRESS', false, 'Destination address invalid'],
    [352, 'EC_INVALID_REQUEST_DESTINATION', true, 'Destination country unknown'],
    [355, 'EC_MSG_TEXT_TOO_LONG', true, 'Text too long'],
    [368, 'EC_INVALID_SOURCE_ADDRESS', true, 'Source address invalid'],
    [433, 'EC_ACCOUNT_ACCESS_DENIED', true, 'Account access denied'],
    [541, 'EC_LIMIT_REACHED', false, 'Carrier sending limit reached'],
    [542, 'EC_QUOTA_REACHED', false, 'Carrier daily quota reached'],
    [572, 'EC_CAMPAIGNID_NOT_PROVISIONED', true, 'Program or campaign id not provisioned'],
    [577, 'EC_ACC_NOT_PROVISIONED_TO_SMS_DEMO_SC', true, 'Account not allowed to use demo short code'],
    [578, 'EC_EXCEEDED_THE_TIME_LIMIT_OF_SMS_DEMO', true, 'Demo time limit passed'],
    [579, 'EC_DEST_ADDRESS_NOT_IN_SMS_DEMO', true, 'Destination address not in whitelist for SMS demo'],
    [580, 'EC_EXCEEDED_THE_MAX_NUMBER', true, 'Demo request count exceeded'],
    [594, 'EC_INVALID_GLOBAL_CAMPAIGN_ID', true, 'Global campaign id invalid'],
    [597, 'EC_ACC_HAS_NO_ADRESS_FOR_DESR', true, 'No address that can reach the destination'],
    [598, 'EC_INTERACTION_NOT_SUPPORTED', true, 'Interaction not supported for destination'],
    [601, 'EC_ACC_NOT_2_WAY', true, 'Account not two-way'],
    [603, 'EC_CONTENT_BLOCKED', true, 'User opted out (STOP)'],
    [604, 'EC_BLOCKED_BY_CAMPAIGN_BLACKLIST', true, 'Campaign blocklist'],
    [607, 'EC_REJECTED_SPAM_BY_OPERATOR', true, 'Spam'],
    [608, 'EC_SIGNALS_BLOCKED', false, 'Anti-fraud block'],
    [609, 'EC_SIGNALS_HARD_LIMIT_REACHED', true, 'Daily system limit (UTC) reached'],
    [2049, 'EC_IMSI_BLACKLISTED', true, 'IMSI blocklisted'],
    [2052, 'EC_BLACKLISTED_DESTINATIONADDRESS', true, 'Destination blocklisted'],
    [2053, 'EC_BLACKLISTED_SENDERADDRESS', true, 'Sender blocklisted'],
    [3041, 'EC_DEACTIVATED_LIST', true, 'Number deactivated'],
    [4096, 'EC_INVALID_PDU_FORMAT', true, 'PDU invalid'],
    [4099, 'EC_MONTHLY_LIMIT_REACHED', true, 'Account monthly credit limit reached'],
    [4100, 'EC_MESSAGE_CANCELED', true, 'Message not sent within its validity period'],
    [4101, 'EC_VALIDITY_EXPIRED', true, 'Message sent but not delivered within its validity period'],
    [4102, 'EC_NOTSUBMITTEDTOSMPPCHANNEL', true, 'Not submitted to SMPP channel'],
    [4103, 'EC_DESTINATION_FLOODING', true, 'Too many messages to one destination'],
    [4104, 'EC_DESTINATION_TXT_FLOODING', true, 'Too many equal messages to one destination'],
    [4202, 'EC_10DLC_LIMIT_REACHED', true, '10DLC operator limit'],
    [15010, 'EC_SOURCE_ADDRESS_NOT_REGISTERED', true, 'Sender not provisioned with operator'],
    [15014, 'EC_MMS_INVALID_SUBJECT', true, 'Subject invalid'],
    [15022, 'EC_URL_ATTACHMENT_TOO_LARGE', true, 'Attachment behind the URL too large'],
    [15024, 'EC_REMOTE_CONTENT_FAILURE', true, 'Remote content could not be fetched'],
    [15026, 'EC_TOO_BIG_CONTENT', true, 'Content larger than the operator allows'],
    [15200, 'EC_INVALID_MSG_TYPE', true, 'Message type invalid'],
    [15201, 'EC_MMS_INVALID_DESTINATION_ADDRESS', true, 'Destination invalid'],
    [15202, 'EC_MMS_INVALID_SOURCE_ADDRESS', true, 'Source invalid'],
    [15203, 'EC_INVALID_SUBJECT', true, 'Subject parameter invalid'],
  ],
  // 3 OPERATOR_ERRORS
  [
    [10, 'EC_BEARER_SERVICE_NOT_PROVISIONED', true, 'Bearer service not provisioned'],
    [15, 'EC_CUG_REJECT', false, 'Closed user group'],
    [20, 'EC_SS_INCOMPATIBILITY', false, 'Supplementary service incompatible'],
    [24, 'EC_NO_RADIO_RESOURCE_AVAILABLE', false, 'No radio resource'],
    [51, 'EC_RESOURCE_LIMITATION', true, 'Network congestion'],
    [71, 'EC_UNKNOWN_ALPHABET', false, 'Alphabet unknown'],
    [345, 'EC_OPERATOR_NOT_FOUND', true, 'Operator not found'],
    [375, 'EC_SOURCE_ADDRESS_IS_BLOCKED', true, 'Source address blocked'],
    [488, 'EC_TF_NUMBER_NOT_VERIFIED', true, 'Toll-free number not verified'],
    [501, 'EC_INVALID_RESPONSE_RECEIVED', false, 'Invalid response from the network'],
    [560, 'EC_SC_BLOCKED_FOR_END_USER', true, 'Short code blocked for this user'],
    [561, 'EC_CONTENT_BLOCKED_BY_OPERATOR', true, 'Content blocked by operator'],
    [562, 'EC_SC_NOT_PROVISIONED', true, 'Short code not provisioned'],
    [563, 'EC_SC_EXPIRED', true, 'Short code expired'],
    [564, 'EC_SC_BLOCKED', true, 'Short code blocked'],
    [566, 'EC_DESTINATION_BLOCKED_BY_OPERATOR', true, 'Number barred from short codes'],
    [568, 'EC_DESTINATION_NOT_SMS_PROVISIONED', true, 'Destination not provisioned for SMS'],
    [569, 'EC_DEST_ADDRESS_SUSPENDED', true, 'Destination suspended'],
    [571, 'EC_CAMPAIGN_ID_REJECTED', false, 'Campaign id rejected'],
    [574, 'EC_BLOCKED_NEW_SUBSCRIPTIONS_FOR_SC', true, 'No new subscriptions for the short code'],
    [592, 'EC_ACCOUNT_NOT_PROVISIONED_FOR_CHANNEL', true, 'Account not provisioned for that network'],
    [630, 'EC_DEST_OVERLOADED', true, 'Destination overloaded'],
    [631, 'EC_MOBILE_OPERATOR_NETWORK_ERROR', true, 'Operator network error'],
    [632, 'EC_SMS_REJECTED_BY_MOBILE_OPERATOR', true, 'Rejected by operator'],
    [633, 'EC_UNKNOWN_MOBILE_OPERATOR', true, 'Unknown operator error'],
    [810, 'EC_FAILED_MESSAGE_DELIVERY', true, 'Delivery failed'],
    [811, 'EC_MESSAGE_EXPIRED', true, 'Expired before reaching handset'],
    [815, 'EC_MESSAGE_SUBMITTED_NOT_ACKED', true, 'Message submitted but not acknowledged'],
    [2048, 'EC_TIME_OUT', false, 'Time-out'],
    [2050, 'EC_DEST_ADDRESS_BLACKLISTED', true, 'Destination on operator blocklist (DND)'],
    [2051, 'EC_INVALIDMSCADDRESS', false, 'Invalid MSC address'],
    [4097, 'EC_NOTSUBMITTEDTOGMSC', false, 'Not passed to any operator'],
    [4098, 'EC_VP_EXPIRED', false, 'Not delivered inside validity period'],
    [5492, 'EC_DUPLICATE_MESSAGE', true, 'Same message already sent to this destination'],
    [15000, 'EC_MMS_GENERAL_ERROR', false, 'General provider error'],
    [15002, 'EC_SYSTEM_ERROR', true, 'System error'],
    [15008, 'EC_PROVIDER_DELIVERY_ERROR', true, 'Provider error during delivery'],
    [15011, 'EC_RECIPIENT_BLOCKED_BY_OPERATOR', true, 'Recipient blocked for MMS by operator'],
    [15013, 'EC_MMS_CONTENT_BLOCKED_BY_OPERATOR', true, 'Content blocked or unsupported by operator'],
    [15015, 'EC_MMS_SC_BLOCKED_BY_END_USER', true, 'User blocked this short code'],
    [15016, 'EC_UNKNOWN_CARRIER', true, 'Operator cannot be determined'],
    [15020, 'EC_CAMPAIGN_BLOCKED_BY_OPERATOR', true, 'Campaign blocked by operator'],
    [15021, 'EC_CAMPAIGN_INFO_NOT_PROVISIONED', true, 'Campaign data not provisioned'],
    [15023, 'EC_FAILED_TO_ROUTE_MESSAGE', true, 'Could not be routed'],
    [15025, 'EC_REMOTE_CONTENT_INTERNAL_FAILURE', true, 'Internal error while fetching remote content'],
  ],
];

function byId<View extends { readonly id: number }>(views: View[]): Readonly<Record<number, View>> {
  const table: Record<number, View> = Object.create(null);
  for (const view of views) {
    if (table[view.id] !== undefined) throw new Error(`code ${view.id} stands twice in its table`);
    table[view.id] = Object.freeze(view);
  }
  return Object.freeze(table);
}

/** All statuses by id. */
export const STATUSES: Readonly<Record<number, StatusView>> = byId(
  STATUS_ROWS.map(([id, groupId, name, description, action]): StatusView => {
    const view = { groupId, groupName: STATUS_GROUPS[groupId]!, id, name, description };
    return action === undefined ? view : { ...view, action };
  }),
);

/** All errors by id; 0 = no error. */
export const ERRORS: Readonly<Record<number, ErrorView>> = byId(
  ERROR_ROWS.flatMap((rows, groupId) =>
    rows.map(
      ([id, name, permanent, description]): ErrorView => ({
        groupId,
        groupName: ERROR_GROUPS[groupId]!,
        id,
        name,
        description,
        permanent,
      }),
    ),
  ),
);

/** The frozen view of a status id. Throws RangeError for an id outside the table. */
export function statusView(id: number): StatusView {
  const view = STATUSES[id];
  if (view === undefined) throw new RangeError(`no status ${id}`);
  return view;
}

/** The frozen view of an error id. Throws RangeError for an id outside the table. */
export function errorView(id: number): ErrorView {
  const view = ERRORS[id];
  if (view === undefined) throw new RangeError(`no error ${id}`);
  return view;
}
