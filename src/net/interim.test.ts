import type { Socket } from 'node:net';
import { expect, it } from 'vitest';
import { testEnv } from '../env.ts';
import { passingContinue } from './interim.ts';

const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n';

/** A socket that gives these pieces one by one, through the connector; `write` = a request leaves. */
function through(pieces: Buffer[]): { read(): Buffer | null; write(bytes: string): void } {
  const left = [...pieces];
  const raw = { read: () => left.shift() ?? null, write: () => true } as unknown as Socket;
  let made: Socket | null = null;
  passingContinue<null>((_, callback) => callback(null, raw))(null, (error, socket) => {
    if (error === null) made = socket;
  });
  return made as unknown as ReturnType<typeof through>;
}

/** All that comes until there is nothing. */
function all(socket: { read(): Buffer | null }): string {
  const got: Buffer[] = [];
  for (let piece = socket.read(); piece !== null; piece = socket.read()) got.push(piece);
  return Buffer.concat(got).toString('latin1');
}

it('takes every 100 off the front of an answer, however the bytes are cut, and nothing else', () => {
  const { random } = testEnv();
  const below = (n: number): number => random.bytes(1)[0]! % n;
  const heads = ['', CONTINUE, CONTINUE.repeat(3), 'HTTP/1.0 100 Go\r\nServer: x\r\n\r\n', 'HTTP/1.1 100\r\n\r\n'];
  const answers = [
    `HTTP/1.1 200 OK\r\n\r\n${CONTINUE}`,
    'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n',
    'HTTP/1.1 1000 odd\r\n\r\n',
    'HTTP/1.1 404 no\r\n\r\n',
    'no HTTP at all, though long enough',
  ];
  for (let round = 0; round < 3_000; round++) {
    const answer = answers[below(answers.length)] as string;
    const bytes = Buffer.from((heads[below(heads.length)] as string) + answer, 'latin1');
    const pieces: Buffer[] = [];
    for (let at = 0; at < bytes.length; ) {
      const size = 1 + below(40);
      pieces.push(bytes.subarray(at, at + size));
      at += size;
    }
    const socket = through(pieces);
    socket.write('POST');
    expect(all(socket), JSON.stringify(pieces.map(String))).toBe(answer);
  }
});

it('looks only where an answer begins: behind bytes of ours', () => {
  const whole = Buffer.from(CONTINUE);
  expect(all(through([whole]))).toBe(CONTINUE);
  const socket = through([Buffer.from('HTTP/1.1 200 OK\r\n\r\n'), whole]);
  socket.write('POST');
  expect(all(socket)).toBe(`HTTP/1.1 200 OK\r\n\r\n${CONTINUE}`);
});

it('holds no more than the head of an answer back', () => {
  const endless = Buffer.from(`HTTP/1.1 100 Continue\r\n${'x: y\r\n'.repeat(4_000)}`);
  const socket = through([endless]);
  socket.write('POST');
  expect(all(socket)).toBe(endless.toString());
});

it('hands on that there is no connection', () => {
  const failed = new Error('refused');
  const got: unknown[] = [];
  passingContinue<null>((_, callback) => callback(failed, null))(null, (...result) => got.push(result));
  expect(got).toEqual([[failed, null]]);
});
