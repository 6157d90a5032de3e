/**
 * The presentation of an MM (SMIL in the subset that handsets agree on, OMA-MMS-CONF): made from the parts when the customer
 * gave none, and the customer's own made to point at the parts as they travel.
 *
 * Promises: what is made is well-formed, names every picture, video, sound and text once and in order, and refers by `cid:`.
 * A customer's own is changed in its `src` values only, and only where a part of that name exists.
 *
 * Fails: nothing; SMIL that cannot be read goes out as it came.
 */
import type { Part } from '../../domain/submission.ts';
import { element, XML_DECLARATION, type XmlText } from '../../xml.ts';

type Slot = 'img' | 'video' | 'audio' | 'text';
type Slide = Partial<Record<Slot, string>>;

/** How long a slide stays on the handset's screen when the customer says nothing about it. */
const SLIDE_MS = 5000;
/** How parts of one slide follow each other. */
const ORDER = ['img', 'video', 'text', 'audio'] as const;

/**
 * One slide per picture or video, with the text and the sound next to it; parts of other kinds (contact cards, documents)
 * travel as attachments and stand in no slide.
 */
export function makeSmil(parts: readonly Part[]): string {
  const slides: Slide[] = [];
  for (const part of parts) {
    const slot = slotOf(part.contentType);
    if (!slot) continue;
    let slide = slides.at(-1);
    if (!slide || !fits(slide, slot)) {
      slide = {};
      slides.push(slide);
    }
    slide[slot] = part.contentId;
  }
  const seen = slides.some((slide) => slide.img || slide.video);
  const read = slides.some((slide) => slide.text);
  const full = { left: 0, width: '100%' };
  const layout = element(
    'layout',
    null,
    element('root-layout', { width: '100%', height: '100%' }),
    seen && element('region', { id: 'Image', ...full, top: 0, height: read ? '80%' : '100%', fit: 'meet' }),
    read && element('region', { id: 'Text', ...full, top: seen ? '80%' : 0, height: seen ? '20%' : '100%' }),
  );
  const body = element('body', null, ...slides.map(par));
  return XML_DECLARATION + element('smil', null, element('head', null, layout), body);
}

function par(slide: Slide): XmlText {
  const media = ORDER.map((slot) => {
    const id = slide[slot];
    const region = slot === 'audio' ? undefined : slot === 'text' ? 'Text' : 'Image';
    return id !== undefined && element(slot, { src: `cid:${id}`, region });
  });
  return element('par', { dur: `${SLIDE_MS}ms` }, ...media);
}

function slotOf(contentType: string): Slot | null {
  const type = contentType.trim().toLowerCase();
  if (type.startsWith('image/')) return 'img';
  if (type.startsWith('video/')) return 'video';
  if (type.startsWith('audio/')) return 'audio';
  return type.startsWith('text/plain') ? 'text' : null;
}

/** A slide has room for one text, and for a picture and a sound, or for a video alone. */
function fits(slide: Slide, slot: Slot): boolean {
  if (slide[slot]) return false;
  if (slot === 'img') return !slide.video;
  if (slot === 'audio') return !slide.video;
  return slot !== 'video' || (!slide.img && !slide.audio);
}

const SRC = /(\ssrc\s*=\s*)(?:"([^"<]*)"|'([^'<]*)')/g;

/**
 * The customer's SMIL with each `src` that names a part (by contentId, with or without `cid:`, as the customer wrote it or
 * as it was made safe) pointing at that part; others stay. It is sent as UTF-8, so a declared encoding is set to that.
 */
export function resolveSmil(smil: string, parts: readonly Part[]): string {
  const names = new Map<string, string>();
  for (const part of parts) names.set(part.contentId.toLowerCase(), part.contentId);
  return smil
    .replace(/^(<\?xml\s[^>]{0,100}?encoding\s*=\s*)(["'])[A-Za-z0-9._-]*\2/, '$1$2UTF-8$2')
    .replace(SRC, (whole, before: string, double?: string, single?: string) => {
      const wanted = decoded(double ?? single ?? '').replace(/^cid:/i, '');
      const id = names.get(wanted.toLowerCase()) ?? names.get(wireName(wanted).toLowerCase());
      return id === undefined ? whole : `${before}"cid:${id}"`;
    });
}

/** How dispatch makes contentIds safe on the wire. */
function wireName(contentId: string): string {
  return contentId.replace(/[^A-Za-z0-9._-]+/g, '_').slice(0, 64);
}

const ENTITY: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function decoded(value: string): string {
  return value.replace(/&(amp|lt|gt|quot|apos);/g, (_, name: string) => ENTITY[name]!);
}
