import { describe, expect, it } from 'vitest';
import { askOf, optOutStatus, senderKey } from './optout.ts';

describe('what a text asks for', () => {
  it('is STOP and its like, however it is written', () => {
    for (const text of [
      'STOP',
      'stop',
      ' Stop. ',
      '"STOP"',
      'stop!!!',
      '\u201cStop\u201d',
      'ＳＴＯＰ',
      'StopAll',
      'STOP ALL',
      'stop-all',
      'Unsubscribe',
      'CANCEL\r\n',
      'end',
      'Quit :)',
    ]) {
      expect([text, askOf(text)]).toEqual([text, 'stop']);
    }
    for (const text of ['start', 'YES!', 'UnStop', '\tyes\n']) expect([text, askOf(text)]).toEqual([text, 'start']);
  });

  it('is nothing where the word is only part of the text, or none', () => {
    for (const text of [
      '',
      '   ',
      '...',
      'please stop by at nine',
      'stop it',
      'do not stop',
      'nonstop',
      'the end',
      'yes please',
      `stop${' '.repeat(80)}`,
      'х'.repeat(1_000_000),
    ]) {
      expect([text.slice(0, 40), askOf(text)]).toEqual([text.slice(0, 40), null]);
    }
  });

  it('can be in other words', () => {
    const words = { stop: ['arrêt', 'стоп'], start: [] };
    expect([askOf('ARRÊT', words), askOf('Стоп.', words), askOf('stop', words), askOf('start', words)]).toEqual([
      'stop',
      'stop',
      null,
      null,
    ]);
  });
});

describe('a sender', () => {
  it('is compared without + and without regard to case', () => {
    expect(['+441134960000', ' 441134960000', 'Shop', '+Shop', ''].map(senderKey)).toEqual([
      '441134960000',
      '441134960000',
      'shop',
      '+shop',
      '',
    ]);
    expect([optOutStatus('shop'), optOutStatus('')]).toEqual([10, 14]);
  });
});
