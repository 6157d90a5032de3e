/**
 * What Infobip's published OpenAPI document (MMS, version 3.210) says of its answers, as far as this server gives them, in a
 * short form of our own: name and type of each member, `?` = not always there. Answers are held against it beside the server's
 * own schemas, so that a mistake in those shows.
 */
export type Shape = string | readonly string[] | { readonly [member: string]: Shape } | readonly [Shape];

const status = {
  groupId: 'int32',
  groupName: ['ACCEPTED', 'PENDING', 'UNDELIVERABLE', 'DELIVERED', 'EXPIRED', 'REJECTED'],
  id: 'int32',
  name: 'string',
  description: 'string',
  'action?': 'string',
};
const error = {
  groupId: 'int32',
  groupName: ['OK', 'HANDSET_ERRORS', 'USER_ERRORS', 'OPERATOR_ERRORS'],
  id: 'int32',
  name: 'string',
  description: 'string',
  permanent: 'boolean',
};
const price = { pricePerMessage: 'number', currency: 'string' };
const platform = { 'entityId?': 'string', 'applicationId?': 'string' };
const segment = {
  type: ['TEXT', 'LINK', 'SMIL', 'UPLOADED_REFERENCE'],
  'contentId?': 'string',
  'text?': 'string',
  'contentUrl?': 'string',
  'contentType?': 'string',
  'smil?': 'string',
  'uploadedContentId?': 'string',
};

export const published = {
  send: { bulkId: 'string', messages: [{ messageId: 'string', status, destination: 'string', 'details?': {} }] },
  reports: {
    results: [
      {
        bulkId: 'string',
        price,
        status,
        error,
        messageId: 'string',
        to: 'string',
        sender: 'string',
        sentAt: 'date-time',
        doneAt: 'date-time',
        messageCount: 'int32',
        'mccMnc?': 'string',
        'callbackData?': 'string',
        'platform?': platform,
        'campaignReferenceId?': 'string',
      },
    ],
  },
  logs: {
    results: [
      {
        'title?': 'string',
        'mccMnc?': 'string',
        sender: 'string',
        destination: 'string',
        bulkId: 'string',
        messageId: 'string',
        sentAt: 'date-time',
        doneAt: 'date-time',
        messageCount: 'int32',
        price,
        status,
        error,
        'platform?': platform,
        content: { 'title?': 'string', messageSegments: [segment] },
        'campaignReferenceId?': 'string',
      },
    ],
    'cursor?': { limit: 'int32', 'nextCursor?': 'string' },
  },
  upload: { uploadedContentId: 'string' },
  uploadError: { bulkId: 'string', messages: [{}], errorMessage: 'string' },
  error: {
    errorCode: 'string',
    description: 'string',
    action: 'string',
    violations: [{ property: 'string', violation: 'string' }],
    resources: [{ name: 'string', url: 'string' }],
  },
  olderError: { requestError: { serviceException: { messageId: 'string', text: 'string' } } },
} as const satisfies Record<string, Shape>;

const delivered = {
  groupId: 3,
  groupName: 'DELIVERED',
  id: 5,
  name: 'DELIVERED_TO_HANDSET',
  description: 'Message delivered to handset',
};
const ofExample = {
  bulkId: '3746923784',
  messageId: '43u2ih-6453jbh-897kfs90u2nj',
  sender: '441134960000',
  messageCount: 3,
  price: { pricePerMessage: 1, currency: 'EUR' },
  status: delivered,
};
const at = (ms: string) => ({ sentAt: `2026-07-07T06:32:15.${ms}+0000`, doneAt: `2026-07-07T06:32:15.${ms}+0000` });

/**
 * The facts of the published examples. They leave out members that their own schemas have, and that clients read (`to`, `error`);
 * a `title` beside that of the content says something else in one of them, here it is left out.
 */
export const examples = {
  report: { ...ofExample, ...at('101') },
  /** Names in the order in which the XML form of a report has them, and what they hold. */
  reportXml: [
    ['bulkId', '3746923784'],
    ['price/pricePerMessage', '1'],
    ['price/currency', 'EUR'],
    ['status/groupId', '3'],
    ['status/groupName', 'DELIVERED'],
    ['status/id', '5'],
    ['status/name', 'DELIVERED_TO_HANDSET'],
    ['status/description', 'Message delivered to handset'],
    ['messageId', '43u2ih-6453jbh-897kfs90u2nj'],
    ['sender', '441134960000'],
    ['sentAt', '2026-07-07T06:32:15.101+0000'],
    ['doneAt', '2026-07-07T06:32:15.101+0000'],
    ['messageCount', '3'],
  ],
  log: {
    ...ofExample,
    ...at('966'),
    mccMnc: '22801',
    destination: '441134960001',
    content: { title: 'Some title', messageSegments: [{ text: 'Some text', type: 'TEXT' }] },
  },
} as const;

const DATE_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000$/;

/** Where `value` differs from a shape; [] = nowhere. */
export function differences(value: unknown, shape: Shape, path = '$'): string[] {
  if (typeof shape === 'string') return hasType(value, shape) ? [] : [`${path} is not ${shape}`];
  if (Array.isArray(shape)) {
    if (typeof shape[0] === 'string') {
      return shape.includes(value as never) ? [] : [`${path} is not one of ${shape.join(', ')}`];
    }
    if (!Array.isArray(value)) return [`${path} is not an array`];
    return value.flatMap((item, index) => differences(item, shape[0] as Shape, `${path}[${index}]`));
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path} is not an object`];
  const found: string[] = [];
  const members = shape as { readonly [member: string]: Shape };
  const known = new Set(Object.keys(members).map((name) => name.replace('?', '')));
  for (const name of Object.keys(value)) if (!known.has(name)) found.push(`${path}.${name} is not published`);
  for (const [name, inner] of Object.entries(members)) {
    const plain = name.replace('?', '');
    const member = (value as Record<string, unknown>)[plain];
    if (member === undefined) {
      if (plain === name) found.push(`${path}.${name} is missing`);
    } else found.push(...differences(member, inner, `${path}.${plain}`));
  }
  return found;
}

function hasType(value: unknown, type: string): boolean {
  if (type === 'int32') return Number.isInteger(value) && Math.abs(value as number) < 2 ** 31;
  if (type === 'date-time') return typeof value === 'string' && DATE_TIME.test(value);
  return type === typeof value;
}
