import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { ERROR_GROUPS, ERRORS, errorView, STATUS_GROUPS, STATUSES, statusView } from './codes.ts';

const statuses = Object.values(STATUSES);
const errors = Object.values(ERRORS);
const fingerprint = (lines: string[]) => createHash('sha256').update(lines.join('\n')).digest('hex');

/** Ids that Infobip's list no longer shows. */
const OLD = [0, 1, 16, 22, 28];

describe('the status table', () => {
  it('holds the 36 published rows (87 stands there twice, so 35 ids) and the 5 older ids, each once', () => {
    const published = statuses.map((s) => s.id).filter((id) => !OLD.includes(id));
    expect(published).toEqual([
      2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 23, 24, 25, 26, 29, 31, 51, 52, 56, 77, 87,
      96, 97, 98, 99, 100,
    ]);
    expect(published.length + OLD.length).toBe(statuses.length);
    expect(new Set(statuses.map((s) => s.name)).size).toBe(statuses.length);
  });

  it('has the ids, names and groups of the published list, letter by letter', () => {
    const lines = statuses.filter((s) => !OLD.includes(s.id)).map((s) => `${s.id} ${s.name} ${s.groupId}`);
    expect(fingerprint(lines)).toBe('931cc669c708f304301ea7040a7f359a77bb3454068a880b4b877a02525b1c91');
  });

  it('names its groups as the contract does', () => {
    expect(STATUS_GROUPS).toEqual(['ACCEPTED', 'PENDING', 'UNDELIVERABLE', 'DELIVERED', 'EXPIRED', 'REJECTED']);
    for (const s of statuses) expect(s.groupName).toBe(STATUS_GROUPS[s.groupId]);
    const ids = (groupId: number) => statuses.filter((s) => s.groupId === groupId).map((s) => s.id);
    expect([0, 1, 2, 3, 4].map(ids)).toEqual([[0], [1, 3, 7, 26], [4, 9, 31, 96, 97, 98], [2, 5], [15, 22, 29]]);
    expect(statusView(87).groupName).toBe('REJECTED');
  });

  it('gives the view as it goes on the wire: members in order, action only where there is one', () => {
    expect(JSON.stringify(statusView(26))).toBe(
      '{"groupId":1,"groupName":"PENDING","id":26,"name":"PENDING_ACCEPTED","description":"Message sent to next instance"}',
    );
    expect(JSON.stringify(statusView(19))).toBe(
      '{"groupId":5,"groupName":"REJECTED","id":19,"name":"REJECTED_ROUTE_NOT_AVAILABLE","description":"Route not available","action":"Contact account manager"}',
    );
  });
});

describe('the error table', () => {
  it('holds the 176 published rows: 175 ids, since 4102 stands there twice', () => {
    expect(errors.length).toBe(175);
    expect(new Set(errors.map((e) => e.id)).size).toBe(175);
    expect(errorView(4102).groupName).toBe('USER_ERRORS');
  });

  it('has the ids, names and permanence of the published list, letter by letter', () => {
    const lines = errors.map((e) => `${e.id} ${e.name} ${e.permanent}`);
    expect(fingerprint(lines)).toBe('acd1f64d875e99663b9fcbb4a6f040b9e5737ef7fe0d7182c70d8c9a1aeeab09');
  });

  it('names its groups as the contract does: 1 OK, 76 handset, 34 user and 34 operator errors, and 30 of MMS', () => {
    expect(ERROR_GROUPS).toEqual(['OK', 'HANDSET_ERRORS', 'USER_ERRORS', 'OPERATOR_ERRORS']);
    for (const e of errors) expect(e.groupName).toBe(ERROR_GROUPS[e.groupId]);
    const count = (groupId: number, mms: boolean) =>
      errors.filter((e) => e.groupId === groupId && e.id >= 15_000 === mms).length;
    expect([0, 1, 2, 3].map((g) => count(g, false))).toEqual([1, 76, 34, 34]);
    expect([0, 1, 2, 3].map((g) => count(g, true))).toEqual([0, 10, 9, 11]);
  });

  it('groups the MMS errors by who can mend them', () => {
    const mms = (groupId: number) => errors.filter((e) => e.id >= 15_000 && e.groupId === groupId).map((e) => e.id);
    expect(mms(1)).toEqual([15003, 15004, 15005, 15006, 15007, 15009, 15012, 15017, 15018, 15019]);
    expect(mms(2)).toEqual([15010, 15014, 15022, 15024, 15026, 15200, 15201, 15202, 15203]);
  });

  it('gives success exactly as the contract has it', () => {
    expect(JSON.stringify(errorView(0))).toBe(
      '{"groupId":0,"groupName":"OK","id":0,"name":"NO_ERROR","description":"No Error","permanent":false}',
    );
  });
});

describe('both tables', () => {
  it('describe every code in at most 70 characters', () => {
    for (const { description } of [...statuses, ...errors]) expect(description).toMatch(/^[A-Z1].{1,69}$/);
  });

  it('give the same frozen view each time, and nobody can change them', () => {
    expect(statusView(5)).toBe(statusView(5));
    expect(errorView(815)).toBe(errorView(815));
    for (const view of [STATUSES, ERRORS, ...statuses, ...errors]) expect(Object.isFrozen(view)).toBe(true);
  });

  it('throw for an id they do not know, also for names every object has', () => {
    expect(() => statusView(27)).toThrow(RangeError);
    expect(() => errorView(-1)).toThrow(RangeError);
    expect(() => errorView('toString' as unknown as number)).toThrow(RangeError);
  });
});
