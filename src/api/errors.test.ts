import { describe, expect, it } from 'vitest';
import { apiErrorAnswer, olderErrorAnswer } from './answers.ts';
import { apiError, ERRORS, type ErrorCode, errorFor, unavailable, uploadError } from './errors.ts';

const codes = Object.keys(ERRORS) as ErrorCode[];

describe('errors', () => {
  it.each(codes)('%s has the five members of /mms/2 and the older form of /mms/1, with its own HTTP status', (code) => {
    const newer = errorFor('/mms/2/anything', code);
    expect(apiErrorAnswer.parse(JSON.parse(newer.body)).errorCode).toBe(code);
    expect(newer.status).toBe(Number(code.slice(1)));
    const older = errorFor('/mms/1/anything', code);
    olderErrorAnswer.parse(JSON.parse(older.body));
    expect(older.status).toBe(newer.status);
  });

  it('says what is published, word for word', () => {
    expect(JSON.parse(apiError('E403').body)).toEqual({
      errorCode: 'E403',
      description: 'Insufficient permissions to access the requested resource.',
      action: 'Repeat the request with new or different credentials.',
      violations: [],
      resources: [
        {
          name: 'API Scopes',
          url: 'https://www.infobip.com/docs/essentials/api-essentials/api-authorization#api-scopes',
        },
      ],
    });
    expect(JSON.parse(apiError('E429').body)).toEqual({
      errorCode: 'E429',
      description: 'Too many requests sent.',
      action: 'Check request rate limit specified in the API endpoint documentation resource.',
      violations: [],
      resources: [
        {
          name: 'Throttling handling errors',
          url: 'https://www.infobip.com/docs/essentials/integration-best-practices#throttling-handling-errors',
        },
      ],
    });
    const violations = [{ property: 'messages[1].content.text', violation: 'must not be null' }];
    expect(JSON.parse(apiError('E400', { violations }).body)).toEqual({
      errorCode: 'E400',
      description: 'Request cannot be processed.',
      action: 'Check the syntax, violations and adjust the request.',
      violations,
      resources: [],
    });
    expect(JSON.parse(apiError('E500').body)).toMatchObject({
      description: 'Something went wrong.',
      action: 'Contact the support.',
    });
    expect(JSON.parse(errorFor('/mms/1/content', 'E500').body)).toEqual({
      requestError: {
        serviceException: { messageId: 'GENERAL_ERROR', text: 'Something went wrong. Please contact support.' },
      },
    });
    expect(JSON.parse(uploadError('words').body)).toEqual({ bulkId: '', messages: [], errorMessage: 'words' });
  });

  it('tells when to come back with every 503', () => {
    expect(unavailable('/mms/2/messages', 5)).toMatchObject({ status: 503, headers: { 'retry-after': '5' } });
    expect(unavailable('/mms/1/content', 1)).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });
  });
});
