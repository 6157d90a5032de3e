/** What the door tells of those who open short links: their device, their network, their place. */
import { describe, expect, it } from 'vitest';
import { createGeo } from './geo.ts';
import { deviceOf, networkOf } from './links.ts';

describe('a device', () => {
  it.each([
    [
      'Mozilla/5.0 (iPhone; CPU iPhone OS 12_1_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/12.0 Mobile/15E148 Safari/604.1',
      ['Phone', 'iOS 12', 'Apple'],
    ],
    [
      'Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36',
      ['Phone', 'Android 15', ''],
    ],
    [
      'Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1',
      ['Tablet', 'iOS 17', 'Apple'],
    ],
    [
      'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36',
      ['Desktop', 'Windows 10', ''],
    ],
    ['', ['', '', '']],
    ['nonsense', ['', '', '']],
    ['('.repeat(512), ['', '', '']],
  ])('is read from %j', (userAgent, [deviceType, os, deviceName]) => {
    const read = deviceOf(userAgent);
    expect([read.deviceType, read.os]).toEqual([deviceType, os]);
    if (deviceName !== '') expect(read.deviceName).toBe(deviceName);
  });
});

describe('an address', () => {
  it.each([
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '::ffff:192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8:1:2::9', '2001:db8:1:2'],
    ['2001:db8::9', '2001:db8:0:0'],
    ['2001:db8::1:9', '2001:db8:0:0'],
    ['::1', '0:0:0:0'],
    ['', ''],
  ])('%s counts as %s', (address, network) => {
    expect(networkOf(address)).toBe(network);
  });
});

describe('a database of places', () => {
  it('that is none is refused at the start', () => {
    expect(() => createGeo(Buffer.from('no database'))).toThrow();
  });
});
