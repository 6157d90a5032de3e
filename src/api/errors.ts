/**
 * Every error that the API answers, in one table, and the three shapes that Infobip's family has for them: the newer one of
 * /mms/2 (exactly five members: strict clients fail on a sixth), the older `requestError` of /mms/1, and the upload's own 400.
 *
 * Promises: bodies are complete answers with status, headers and text; nothing of the request is quoted. Words of E400, E401,
 * E403, E404, E409, E429 and E500 are Infobip's; the documents lack E405, E412, E413, E415 and E503, which are
 * ours.
 */
import { element, text, XML_DECLARATION, type XmlText } from '../xml.ts';
import type { Violation } from './violations.ts';

/** A whole answer, ready for one writeHead and one end. */
export interface Answer {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: string;
}

const JSON_TYPE = 'application/json; charset=UTF-8';

/**
 * On every answer in JSON: it is nobody's to guess its type, and nobody's but the customer's to keep (message ids, numbers
 * and texts stand in it).
 */
export const JSON_HEADERS: Readonly<Record<string, string>> = Object.freeze({
  'content-type': JSON_TYPE,
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
});

export type ErrorCode =
  | 'E400'
  | 'E401'
  | 'E403'
  | 'E404'
  | 'E405'
  | 'E409'
  | 'E412'
  | 'E413'
  | 'E415'
  | 'E429'
  | 'E500'
  | 'E503';

interface Row {
  status: number;
  description: string;
  action: string;
  resources: { name: string; url: string }[];
  /** `messageId` and `text` in the older form. */
  older: [string, string];
}

const AUTHENTICATION = {
  name: 'API Authentication',
  url: 'https://www.infobip.com/docs/essentials/api-authentication',
};
const SCOPES = {
  name: 'API Scopes',
  url: 'https://www.infobip.com/docs/essentials/api-essentials/api-authorization#api-scopes',
};
const THROTTLING = {
  name: 'Throttling handling errors',
  url: 'https://www.infobip.com/docs/essentials/integration-best-practices#throttling-handling-errors',
};

export const ERRORS: Readonly<Record<ErrorCode, Row>> = {
  E400: {
    status: 400,
    description: 'Request cannot be processed.',
    action: 'Check the syntax, violations and adjust the request.',
    resources: [],
    older: ['BAD_REQUEST', 'Bad request'],
  },
  E401: {
    status: 401,
    description: 'The request lacks valid authentication credentials for the requested resource.',
    action: 'Check the resources and adjust authentication credentials.',
    resources: [AUTHENTICATION],
    older: ['UNAUTHORIZED', 'Unauthorized'],
  },
  E403: {
    status: 403,
    description: 'Insufficient permissions to access the requested resource.',
    action: 'Repeat the request with new or different credentials.',
    resources: [SCOPES],
    older: ['FORBIDDEN', 'Forbidden'],
  },
  E404: {
    status: 404,
    description: "Not found - request URL doesn't exist on the API server or resource is not found.",
    action: 'Check the resources and adjust your request.',
    resources: [],
    older: ['NOT_FOUND', 'Not found'],
  },
  E405: {
    status: 405,
    description: 'Method is not allowed for the requested URL.',
    action: 'Repeat the request with a method that the Allow header lists.',
    resources: [],
    older: ['METHOD_NOT_ALLOWED', 'Method not allowed'],
  },
  E409: {
    status: 409,
    description: 'Request cannot be processed due to conflicts with existing resources',
    action: 'Check violations and adjust the request.',
    resources: [],
    older: ['CONFLICT', 'Conflict'],
  },
  E412: {
    status: 412,
    description: 'What If-Match names is not what is there. Nothing of the request was done.',
    action: 'Read it again, and repeat the change with the ETag that is there now.',
    resources: [],
    older: ['PRECONDITION_FAILED', 'Precondition failed'],
  },
  E413: {
    status: 413,
    description: 'Request body is too large.',
    action: 'Send less in one request.',
    resources: [],
    older: ['PAYLOAD_TOO_LARGE', 'Request body is too large'],
  },
  E415: {
    status: 415,
    description: 'Content type of the request is not supported.',
    action: 'Send the body as application/json.',
    resources: [],
    older: ['UNSUPPORTED_MEDIA_TYPE', 'Unsupported media type'],
  },
  E429: {
    status: 429,
    description: 'Too many requests sent.',
    action: 'Check request rate limit specified in the API endpoint documentation resource.',
    resources: [THROTTLING],
    older: ['TOO_MANY_REQUESTS', 'Too many requests'],
  },
  E500: {
    status: 500,
    description: 'Something went wrong.',
    action: 'Contact the support.',
    resources: [],
    older: ['GENERAL_ERROR', 'Something went wrong. Please contact support.'],
  },
  E503: {
    status: 503,
    description: 'Service is temporarily unavailable. Nothing of the request was done.',
    action: 'Repeat the request after the time in the Retry-After header.',
    resources: [],
    older: ['SERVICE_UNAVAILABLE', 'Service is temporarily unavailable'],
  },
};

export interface ErrorDetails {
  violations?: readonly Violation[];
  /** Instead of the table's. */
  action?: string;
  headers?: Record<string, string>;
}

/** The newer form: errorCode, description, action, violations, resources. */
export function apiError(code: ErrorCode, details: ErrorDetails = {}): Answer {
  const row = ERRORS[code];
  return {
    status: row.status,
    headers: details.headers ? { ...JSON_HEADERS, ...details.headers } : JSON_HEADERS,
    body: JSON.stringify({
      errorCode: code,
      description: row.description,
      action: details.action ?? row.action,
      violations: details.violations ?? [],
      resources: row.resources,
    }),
  };
}

/** The older form, for everything under /mms/1 but the upload's 400. `text` instead of the table's. */
export function olderError(code: ErrorCode, details: { text?: string; headers?: Record<string, string> } = {}): Answer {
  const { status, older } = ERRORS[code];
  return {
    status,
    headers: details.headers ? { ...JSON_HEADERS, ...details.headers } : JSON_HEADERS,
    body: JSON.stringify({
      requestError: { serviceException: { messageId: older[0], text: details.text ?? older[1] } },
    }),
  };
}

/** The 400 of POST /mms/1/content, a shape of its own. */
export function uploadError(errorMessage: string): Answer {
  return {
    status: 400,
    headers: JSON_HEADERS,
    body: JSON.stringify({ bulkId: '', messages: [], errorMessage }),
  };
}

/** The error in the form that the path's family has. */
export function errorFor(path: string, code: ErrorCode, details: ErrorDetails = {}): Answer {
  if (path !== '/mms/1' && !path.startsWith('/mms/1/') && !path.startsWith('/auth/1/')) return apiError(code, details);
  const headers = { ...details.headers, ...deprecation(path) };
  return olderError(code, Object.keys(headers).length === 0 ? {} : { headers });
}

/** Deprecated endpoints and what takes their place. */
const SUCCESSORS: Readonly<Record<string, string>> = {
  '/mms/1/advanced': '/mms/2/messages',
  '/mms/1/reports': '/mms/2/reports',
  '/mms/1/logs': '/mms/2/logs',
};

/**
 * The headers that say what will become of a deprecated endpoint, on whatever is answered there (RFC 9745, RFC 8594); none of
 * others. Dates as Infobip sends and publishes them: in 2026 they are in the past, and we go on to answer.
 */
export function deprecation(path: string): Record<string, string> {
  const successor = Object.hasOwn(SUCCESSORS, path) ? SUCCESSORS[path] : undefined;
  if (successor === undefined) return {};
  return {
    deprecation: 'Fri, 26 Apr 2024 10:00:00 GMT',
    sunset: 'Mon, 01 Jun 2026 00:00:00 GMT',
    link: `<${successor}>; rel="successor-version"`,
  };
}

/** 503 with Retry-After in seconds. */
export function unavailable(path: string, retryAfterSeconds: number): Answer {
  return errorFor(path, 'E503', { headers: { 'retry-after': String(retryAfterSeconds) } });
}

/** 401 with the scheme that would be right (RFC 9110, 11.6.1). */
export function unauthorized(path: string): Answer {
  return errorFor(path, 'E401', { headers: { 'www-authenticate': 'App' } });
}

/** 429 with Retry-After in seconds. */
export function tooMany(path: string, retryAfterSeconds: number): Answer {
  return errorFor(path, 'E429', { headers: { 'retry-after': String(retryAfterSeconds) } });
}

const XML_TYPE = 'application/xml; charset=UTF-8';

/**
 * An error in the form that the client asks for: XML where its Accept names that before (or without) JSON. Those that have no XML
 * stay what they are: of a token's request (RFC 6749, 5.2: JSON), of an upload, and what is no error.
 */
export function formOf(answer: Answer, accept: string | undefined): Answer {
  if (answer.status < 400 || accept === undefined || answer.headers['content-type'] !== JSON_TYPE) return answer;
  if (!prefersXml(accept)) return answer;
  const { requestError, ...newer } = JSON.parse(answer.body) as { requestError?: OlderError; errorCode?: string };
  if (requestError === undefined && newer.errorCode === undefined) return answer;
  const root = requestError === undefined ? element('ApiError', null, ...members(newer)) : olderXml(requestError);
  return {
    ...answer,
    headers: { ...answer.headers, 'content-type': XML_TYPE },
    body: XML_DECLARATION + root,
  };
}

interface OlderError {
  serviceException: { messageId: string; text: string; validationErrors?: Record<string, string[]> };
}

/** What is wrong stands in the text: names of members are no names of elements. */
function olderXml({ serviceException }: OlderError): XmlText {
  const { messageId, text: said, validationErrors = {} } = serviceException;
  const wrong = Object.entries(validationErrors).map(([name, list]) => `${name} ${list.join(', ')}`);
  const whole = wrong.length === 0 ? said : `${said}: ${wrong.join('; ')}`;
  const exception = element('serviceException', null, ...members({ messageId, text: whole }));
  return element('ApiException', null, element('requestError', null, exception));
}

function members(value: object): XmlText[] {
  return Object.entries(value).map(([name, member]: [string, unknown]) => {
    if (Array.isArray(member)) {
      // violations/violation, resources/resource.
      const each = member.map((one: object) => element(name.replace(/s$/, ''), null, ...members(one)));
      return element(name, null, ...each);
    }
    if (typeof member === 'object' && member !== null) return element(name, null, ...members(member));
    return element(name, null, text(String(member)));
  });
}

/** Whether XML has the higher quality in an Accept header (RFC 9110, 12.5.1); of equals, the first. */
export function prefersXml(accept: string): boolean {
  let best = { quality: 0, xml: false };
  for (const range of accept.toLowerCase().slice(0, 1000).split(',')) {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim());
    const xml = type === 'application/xml' || type === 'text/xml';
    if (!xml && type !== 'application/json' && type !== '*/*' && type !== 'application/*') continue;
    const given = parameters.find((parameter) => parameter.startsWith('q='));
    const quality = given === undefined ? 1 : Number(given.slice(2));
    if (quality > best.quality) best = { quality, xml };
  }
  return best.xml;
}

/** A 400 about the body as a whole. */
export function malformed(fault: string): Answer {
  return apiError('E400', { violations: [{ property: '', violation: fault }] });
}
