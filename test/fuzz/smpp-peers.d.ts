/** What of two untyped packages the tests use: the npm package `smpp` as an independent peer, `split-sms` as an oracle. */
declare module 'smpp' {
  import type { Server, Socket } from 'node:net';

  export interface PeerPdu {
    command: string;
    command_length: number;
    command_id: number;
    command_status: number;
    sequence_number: number;
    response(fields?: Record<string, unknown>): PeerPdu;
    toBuffer(): Buffer;
    [field: string]: unknown;
  }

  export interface PeerSession {
    socket: Socket;
    on(event: string, listener: (pdu: PeerPdu) => void): void;
    send(pdu: PeerPdu): boolean;
    close(done?: () => void): void;
    destroy(): void;
    bind_transceiver(fields: Record<string, unknown>, done: (pdu: PeerPdu) => void): boolean;
    submit_sm(fields: Record<string, unknown>, done: (pdu: PeerPdu) => void): boolean;
    deliver_sm(fields: Record<string, unknown>, done: (pdu: PeerPdu) => void): boolean;
    enquire_link(fields: Record<string, unknown>, done: (pdu: PeerPdu) => void): boolean;
    unbind(fields: Record<string, unknown>, done: (pdu: PeerPdu) => void): boolean;
  }

  interface Smpp {
    PDU: new (command: string | Buffer, fields?: Record<string, unknown>) => PeerPdu;
    createServer(listener: (session: PeerSession) => void): Server;
    connect(options: { host: string; port: number }, listener: () => void): PeerSession;
  }
  const smpp: Smpp;
  export default smpp;
}

declare module 'split-sms' {
  const splitter: {
    split(text: string): { characterSet: 'GSM' | 'Unicode'; parts: { content: string }[] };
  };
  export default splitter;
}
