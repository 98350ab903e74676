// Reads a qa-edge bundle (format 2) and runs its conformance cases: written from docs/bundle-format.md alone.
// node reader.mjs BUNDLE [PRECISION]      (needs: npm install onnxruntime-web)
import { createHash } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

// ---- characters: code points -------------------------------------------------------------------------------------
const SPACES = "\\u0009-\\u000d\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const BLANK = new RegExp(`^[${SPACES}]+$`, "u");
const RUNS = new RegExp(`[${SPACES}]+|[^${SPACES}]+`, "gu");
const length = (text) => { let n = 0; for (const _ of text) n++; return n; };

// ---- regular expressions of Python's re, as far as the tables use them ---------------------------------------------
function translate(pattern) {
  let out = "", inClass = false;
  const source = pattern.replace(/^\(\?u\)/, "");
  for (let i = 0; i < source.length; i++) {
    const c = source[i];
    if (c === "\\") {
      const e = source[++i];
      if (e === "u") { out += `\\u{${source.slice(i + 1, i + 5)}}`; i += 4; }
      else if (e === "U") { out += `\\u{${source.slice(i + 1, i + 9).replace(/^0+/, "") || "0"}}`; i += 8; }
      else if (e === "d") out += "\\p{Nd}";
      else if (e === "w") out += inClass ? "\\p{L}\\p{N}_" : "[\\p{L}\\p{N}_]";
      else if (e === "S") out += `[^${SPACES}]`;
      else if ("^$\\.*+?()[]{}|/".includes(e) || (inClass && e === "-")) out += "\\" + e;
      else out += e;
    } else {
      out += inClass && c === "[" ? "\\[" : c;
      inClass = c === "[" || (inClass && c !== "]");
    }
  }
  return out;
}

class Pattern {
  constructor(source) {
    const text = source === null ? "(?!)" : translate(source);
    this.one = new RegExp(text, "u");
    this.first = new RegExp(text, "uy");
    this.every = new RegExp(text, "gu");
  }
  search(text) { const m = this.one.exec(text); return m ? m[0].length : 0; } // in UTF-16 units, as slices are
  matches(text) { this.first.lastIndex = 0; return this.first.test(text); }
  all(text) { return [...text.matchAll(this.every)].map((m) => [m.index, m.index + m[0].length]); }
}

// ---- tokenizer.json --------------------------------------------------------------------------------------------------
// Inside, places are UTF-16 units: patterns cut between whole characters. Offsets of tokens are converted at the end.
export class Tokenizer {
  constructor(tables) {
    if (tables.format_version !== 1) throw new Error(`tokenizer.json of format ${tables.format_version}`);
    for (const name of ["prefix", "suffix", "infix", "url", "token_match"]) this[name] = new Pattern(tables[name]);
    this.exceptions = new Map(Object.entries(tables.exceptions));
    this.phrases = new Map(); // by their first piece
    for (const exception of this.exceptions.keys())
      if (exception.includes(" ") || this.prefix.search(exception) || this.suffix.search(exception) || this.infix.all(exception).length) {
        const phrase = [...this.chunks(exception)].flatMap(([chunk]) => this.split(chunk, new Map()));
        this.phrases.set(phrase[0], [...(this.phrases.get(phrase[0]) ?? []), phrase]);
      }
  }

  *chunks(text) {
    for (const match of text.matchAll(RUNS)) {
      let run = match[0], start = match.index;
      if (run[0] === " " && start > 0) { run = run.slice(1); start++; }
      if (run) yield [run, start];
    }
  }

  split(chunk, exceptions) {
    let core = chunk, before = -1;
    const prefixes = [], suffixes = [];
    while (core && core.length !== before) {
      if (exceptions.has(core) || this.token_match.matches(core)) break;
      before = core.length;
      const p = this.prefix.search(core), rest = core.slice(p);
      if (p && exceptions.has(rest)) { prefixes.push(core.slice(0, p)); core = rest; break; }
      const s = this.suffix.search(rest), cut = core.length - s;
      if (s && exceptions.has(core.slice(0, cut))) { suffixes.push(core.slice(cut)); core = core.slice(0, cut); break; }
      if (p && s && p <= cut) { prefixes.push(core.slice(0, p)); suffixes.push(core.slice(cut)); core = core.slice(p, cut); }
      else if (p) { prefixes.push(core.slice(0, p)); core = rest; }
      else if (s) { suffixes.push(core.slice(cut)); core = core.slice(0, cut); }
    }
    return [...prefixes, ...this.splitCore(core, exceptions), ...suffixes.reverse()];
  }

  splitCore(core, exceptions) {
    if (!core) return [];
    if (exceptions.has(core)) return exceptions.get(core);
    if (this.token_match.matches(core) || this.url.matches(core)) return [core];
    const pieces = [];
    let end = 0;
    for (const [first, last] of this.infix.all(core)) {
      if (first === 0) continue;
      if (first !== end) pieces.push(core.slice(end, first));
      if (first !== last) pieces.push(core.slice(first, last));
      end = last;
    }
    if (end < core.length) pieces.push(core.slice(end));
    return pieces;
  }

  // [piece, start, end] in characters.
  tokens(text) {
    const found = [];
    for (const [chunk, from] of this.chunks(text)) {
      let start = from;
      for (const piece of this.exceptions.get(chunk) ?? this.split(chunk, this.exceptions)) {
        found.push([piece, start, start + piece.length]);
        start += piece.length;
      }
    }
    const result = this.replacePhrases(text, found);
    let unit = 0, character = 0;
    const at = (place) => { character += length(text.slice(unit, place)); unit = place; return character; };
    return result.map(([piece, start, end]) => [piece, at(start), at(end)]);
  }

  replacePhrases(text, tokens) {
    const places = [];
    tokens.forEach(([piece], first) => {
      for (const phrase of this.phrases.get(piece) ?? [])
        if (phrase.every((text, i) => tokens[first + i]?.[0] === text)) places.push([first, phrase.length]);
    });
    places.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    const taken = new Set(), chosen = new Map();
    for (const [first, count] of places) {
      if (!taken.has(first) && !taken.has(first + count - 1)) chosen.set(first, count);
      for (let i = first; i < first + count; i++) taken.add(i);
    }
    const result = [];
    for (let i = 0; i < tokens.length; ) {
      const count = chosen.get(i) ?? 1;
      let start = tokens[i][1];
      const pieces = chosen.has(i) && this.exceptions.get(text.slice(start, tokens[i + count - 1][2]));
      if (pieces) for (const piece of pieces) result.push([piece, start, (start += piece.length)]);
      else result.push(...tokens.slice(i, i + count));
      i += count;
    }
    return result;
  }
}

// ---- vocabulary.json and the table -----------------------------------------------------------------------------------
class Vocabulary {
  constructor(content, width) {
    if (content.format_version !== 1) throw new Error(`vocabulary.json of format ${content.format_version}`);
    this.words = new Map(content.words.map((word, i) => [word, i + 1]));
    this.characters = new Map(content.characters.map((character, i) => [character, i + 2]));
    this.width = width;
  }
  wordId(token) { return this.words.get(token) ?? this.words.get(token.toLowerCase()) ?? 0; }
  characterIds(token) {
    const ids = [...token].slice(0, this.width).map((character) => this.characters.get(character) ?? 1);
    return [...ids, ...new Array(this.width - ids.length).fill(0)];
  }
}

function float16(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return exponent === 31 ? (fraction ? NaN : sign * Infinity) : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

class Table {
  constructor(read, { file, scales_file, dtype, rows, hidden, group_size }) {
    Object.assign(this, { dtype, hidden, group: group_size });
    const size = { float32: 4, float16: 2, int8: 1, int4: 0.5 }[dtype];
    const tail = (name, bytes) => {
      const raw = read(name);
      if (!(bytes > 0 && bytes < raw.length)) throw new Error(`${name} is shorter than ${rows} rows of ${hidden} numbers`);
      return raw.subarray(raw.length - bytes);
    };
    this.stored = tail(file, rows * hidden * size);
    if (scales_file) this.scales = tail(scales_file, (rows * hidden * 2) / group_size);
  }
  row(id) {
    const values = new Float32Array(this.hidden), groups = this.hidden / this.group;
    for (let c = 0; c < this.hidden; c++) {
      const at = id * this.hidden + c;
      const scale = () => float16(this.scales.readUInt16LE(2 * (id * groups + Math.floor(c / this.group))));
      if (this.dtype === "float32") values[c] = this.stored.readFloatLE(4 * at);
      else if (this.dtype === "float16") values[c] = float16(this.stored.readUInt16LE(2 * at));
      else if (this.dtype === "int8") values[c] = this.stored.readInt8(at) * scale();
      else {
        const byte = this.stored[(id * this.hidden) / 2 + (c >> 1)];
        values[c] = ((c % 2 ? byte >> 4 : byte & 15) - 8) * scale();
      }
    }
    return values;
  }
}

// ---- positions, windows, decoder -------------------------------------------------------------------------------------
function positionSignal(tokens, hidden) {
  const half = hidden / 2, signal = new Float32Array(tokens * hidden);
  for (let p = 0; p < tokens; p++)
    for (let j = 0; j < half; j++) {
      const angle = p * Math.exp((-j * Math.log(10000)) / Math.max(half - 1, 1));
      signal[p * hidden + j] = Math.sin(angle);
      signal[p * hidden + half + j] = Math.cos(angle);
    }
  return signal;
}

// [start, stop, keptStart, keptStop]
function windows(tokens, size, overlap) {
  if (tokens <= size) return [[0, tokens, 0, tokens]];
  const starts = [];
  for (let start = 0; start < tokens - size; start += size - overlap) starts.push(start);
  starts.push(tokens - size);
  const cut = starts.map((start) => [start, start + size, start, start + size]);
  for (let i = 1; i < cut.length; i++)
    if (cut[i - 1][1] > cut[i][0]) cut[i - 1][3] = cut[i][2] = Math.floor((cut[i - 1][1] + cut[i][0]) / 2);
  return cut;
}

// What each window adds to its spans' logits: how much it shares with the question (BM25 over its words).
function priors(context, question, cut) {
  const lower = context.map((text) => text.toLowerCase()), scores = cut.map(() => 0);
  if (cut.length === 1) return scores;
  for (const word of new Set(question.filter((text) => /[\p{L}\p{N}]/u.test(text)).map((text) => text.toLowerCase()))) {
    const times = cut.map(([from, to]) => lower.slice(from, to).filter((text) => text === word).length);
    const holding = times.filter((n) => n > 0).length;
    if (!holding) continue;
    const rarity = Math.log(1 + (cut.length - holding + 0.5) / (holding + 0.5));
    times.forEach((n, i) => (scores[i] += (rarity * n * 2.2) / (n + 1.2)));
  }
  return scores.map((score) => 1.5 * score);
}

function decode(start, end, limit, isBlank = () => false, temperature = 1) {
  let best = null;
  const spans = [];
  for (let i = 0; i < start.length; i++)
    for (let j = i; j < start.length && j - i < limit; j++) {
      if (isBlank(i) || isBlank(j)) continue;
      const logit = start[i] + end[j];
      spans.push(logit);
      if (!best || logit > best.logit) best = { start: i, end: j, logit };
    }
  const total = spans.reduce((sum, logit) => sum + Math.exp((logit - best.logit) / temperature), 0);
  return { ...best, probability: 1 / total };
}

// ---- a bundle in ONNX Runtime ----------------------------------------------------------------------------------------
const ENTRIES = "format_version name created qa_edge_version spacy_version files graphs table student scores verification licences probability decoder manifest_sha256".split(" ");
const QUESTION_TOKENS = 400;

function readManifest(folder) {
  const manifest = JSON.parse(readFileSync(join(folder, "manifest.json")));
  if (manifest.format_version !== 2) throw new Error(`bundle format ${manifest.format_version}, expected 2`);
  const unknown = Object.keys(manifest).filter((entry) => !ENTRIES.includes(entry));
  const missing = ["files", "graphs", "table", "decoder"].filter((entry) => typeof manifest[entry] !== "object" || manifest[entry] === null);
  if (unknown.length) throw new Error(`manifest.json has an entry ${unknown[0]} that format 2 does not know`);
  if (missing.length) throw new Error(`manifest.json has no ${missing[0]}`);
  return manifest;
}

// Files as the manifest has them: none that is cut or changed is read.
function reader(folder, files) {
  return (name) => {
    if (!files[name]) throw new Error(`manifest.json has no entry for ${name} under files`);
    const raw = readFileSync(join(folder, name)), { size_bytes, sha256 } = files[name];
    if (raw.length !== size_bytes) throw new Error(`${name} has ${raw.length} bytes instead of ${size_bytes}`);
    if (createHash("sha256").update(raw).digest("hex") !== sha256) throw new Error(`${name} was changed: its SHA-256 is another`);
    return raw;
  };
}

export class Bundle {
  static async open(folder, precision) {
    const bundle = new Bundle(), manifest = (bundle.manifest = readManifest(folder));
    const read = reader(folder, manifest.files), json = (name) => JSON.parse(read(name));
    Object.keys(manifest.files).forEach(read);
    bundle.ort = await import("onnxruntime-web");
    bundle.ort.env.wasm.numThreads = 1;
    Object.assign(bundle, { cases: json("cases.json"), precision, hidden: manifest.table.hidden, remembered: new Map() });
    if (bundle.cases.format_version !== 2) throw new Error(`cases.json of format ${bundle.cases.format_version}, expected 2`);
    const graph = (role) => {
      const found = manifest.graphs.find((g) => g.role === role && g.engine === "onnx" && (role === "token" || g.precision === precision));
      if (!found) throw new Error(`the bundle has no ${role} graph of engine onnx${role === "token" ? "" : ` in ${precision}`}`);
      return found;
    };
    bundle.tokenizer = new Tokenizer(json("tokenizer.json"));
    bundle.vocabulary = new Vocabulary(json("vocabulary.json"), graph("token").inputs[0].shape[1]);
    bundle.table = new Table(read, manifest.table);
    [bundle.core, bundle.token] = await Promise.all(["core", "token"].map((role) => bundle.ort.InferenceSession.create(read(graph(role).file))));
    return bundle;
  }

  async states(tokens) {
    const missing = [...new Set(tokens)].filter((token) => !this.remembered.has(token));
    const unknown = missing.filter((token) => this.vocabulary.wordId(token) === 0);
    for (const token of missing) this.remembered.set(token, this.table.row(this.vocabulary.wordId(token)));
    if (unknown.length) {
      const ids = Int32Array.from(unknown.flatMap((token) => this.vocabulary.characterIds(token)));
      const input = new this.ort.Tensor("int32", ids, [unknown.length, this.vocabulary.width]);
      const { states } = await this.token.run({ character_ids: input });
      unknown.forEach((token, i) => this.remembered.set(token, states.data.slice(i * this.hidden, (i + 1) * this.hidden)));
    }
    return tokens.map((token) => this.remembered.get(token));
  }

  async logits(question, context, size = 400, overlap = 128) {
    for (const [noun, text] of Object.entries({ question, context }))
      if (!text || BLANK.test(text)) throw new Error(`the ${noun} is ${text ? "blank" : "empty"}; expected some text`);
    const tokens = this.tokenizer.tokens(context), texts = (list) => list.map(([text]) => text);
    const questionTexts = texts(this.tokenizer.tokens(question));
    if (questionTexts.length > QUESTION_TOKENS) throw new Error(`the question has ${questionTexts.length} tokens, expected at most ${QUESTION_TOKENS}`);
    const asked = await this.states(questionTexts), read = await this.states(texts(tokens));
    const feed = (name, rows) => {
      const flat = new Float32Array(rows.length * this.hidden);
      rows.forEach((row, i) => flat.set(row, i * this.hidden));
      const tensor = (data) => new this.ort.Tensor("float32", data, [rows.length, this.hidden]);
      return { [name]: tensor(flat), [`${name}_position`]: tensor(positionSignal(rows.length, this.hidden)) };
    };
    const start = [], end = [], cut = windows(tokens.length, size, overlap), prior = priors(texts(tokens), questionTexts, cut);
    for (const [i, [from, to, keptFrom, keptTo]] of cut.entries()) {
      const out = await this.core.run({ ...feed("question", asked), ...feed("context", read.slice(from, to)) });
      const kept = (logits) => [...logits.data.slice(keptFrom - from, keptTo - from)].map((logit) => logit + prior[i] / 2);
      start.push(...kept(out.start_logits));
      end.push(...kept(out.end_logits));
    }
    return { tokens, start, end };
  }

  async answer(question, context, size, overlap) {
    const { tokens, start, end } = await this.logits(question, context, size, overlap);
    const blank = (i) => BLANK.test(tokens[i][0]), limit = this.manifest.decoder.max_answer_tokens;
    const { probability: spanProbability, ...best } = decode(start, end, limit, blank);
    const fitted = this.manifest.probability?.temperature;
    const probability = fitted ? decode(start, end, limit, blank, fitted).probability : null;
    const [from, to] = [tokens[best.start][1], tokens[best.end][2]];
    return { ...best, probability, spanProbability, text: [...context].slice(from, to).join(""), start: from, end: to, tokens: { start, end } };
  }
}

// ---- the conformance procedure ---------------------------------------------------------------------------------------
async function verify(bundle) {
  const { cases } = bundle, stages = {}, same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const add = (name, ok, what, off = 0) => {
    const stage = (stages[name] ??= { passed: 0, total: 0, off: 0, first: null });
    Object.assign(stage, { passed: stage.passed + ok, total: stage.total + 1, off: Math.max(stage.off, off) });
    if (!ok) stage.first ??= what;
  };
  const off = (a, b) => (a.length === b.length ? a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0) : Infinity);
  for (const { text, tokens, word_ids } of cases.texts) {
    const found = bundle.tokenizer.tokens(text);
    const at = tokens.findIndex((token, i) => !same(token, found[i]));
    add("tokens", same(tokens, found), `${JSON.stringify(text)}: ${tokens[at]} but ${found[at]}`);
    add("ids", same(word_ids, tokens.map(([token]) => bundle.vocabulary.wordId(token))), text);
  }
  for (const { word, word_id, character_ids, state } of cases.words) {
    add("ids", word_id === bundle.vocabulary.wordId(word) && same(character_ids, bundle.vocabulary.characterIds(word)), word);
    const d = state ? off(state, (await bundle.states([word]))[0]) : 0;
    if (state) add("states", d <= cases.state_tolerance, word, d);
  }
  for (const { position, signal } of cases.positions) {
    const d = off(signal, positionSignal(position + 1, bundle.hidden).slice(position * bundle.hidden));
    add("positions", d <= cases.position_tolerance, position, d);
  }
  for (const made of cases.decoder) {
    const best = decode(made.start_logits, made.end_logits, made.max_answer_tokens);
    add("decoder", best.start === made.start && best.end === made.end && Math.abs(best.probability - made.probability) <= 1e-6, made);
  }
  const number = cases.graphs.findIndex((g) => g.engine === "onnx" && g.precision === bundle.precision), graph = cases.graphs[number];
  const squares = [];
  for (const { question, context, window_tokens, overlap_tokens, expected } of [...cases.cases, ...cases.documents]) {
    const right = expected.find(({ graphs }) => graphs.includes(number));
    const found = await bundle.answer(question, context, window_tokens, overlap_tokens);
    if (right.start_logits) {
      const ours = [...found.tokens.start, ...found.tokens.end], theirs = [...right.start_logits, ...right.end_logits];
      const d = off(ours, theirs);
      add("logits", d <= graph.logit_tolerance, question, d);
      squares.push(...ours.map((x, i) => (x - theirs[i]) ** 2));
    }
    add("answers", right.answers.some(([start, end]) => start === found.start && end === found.end), `${question}: ${found.text}`);
  }
  const rms = Math.sqrt(squares.reduce((a, b) => a + b) / squares.length);
  add("logits rms", rms <= graph.rms_tolerance, rms, rms);
  return stages;
}

async function main([folder, precision = "int8"]) {
  if (folder === undefined) {
    console.error("usage: node reader.mjs BUNDLE.qab [int8|fp16|fp32]");
    process.exit(2);
  }
  try {
    for (const [name, { passed, total, off, first }] of Object.entries(await verify(await Bundle.open(folder, precision)))) {
      console.log(`${precision} ${name}: ${passed} of ${total}, off by ${off}${first === null ? "" : `; first: ${JSON.stringify(first)}`}`);
      if (passed < total) process.exitCode = 1;
    }
  } catch (error) {
    console.error(`error: ${error.message}; expected the folder of a bundle with ONNX graphs in ${precision}`);
    process.exit(1);
  }
}

// Other modules may import the classes.
if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));
