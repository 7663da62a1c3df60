// Detect with an exported ONNX file in onnxruntime-web, with nothing of this project: see ../README.md.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

const GRAY = 114; // borders around a tile that is not as wide or high as the input

/** To the nearest whole number, halves to the even one, as in Python and OpenCV. */
const round = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

/** First pixels of the tiles along one side of an image, evenly spread. */
function tileStarts(length, side, overlap) {
  if (side >= length) return [0];
  const count = Math.ceil((length - side) / (side * (1 - overlap)) - 1e-9) + 1;
  return Array.from({ length: count }, (_, i) => Math.floor((i * (length - side)) / (count - 1) + 0.5));
}

/** For each pixel of a resized line, [pixel, share] of the line: averages where it shrinks, else linear. */
function shares(length, resized) {
  return Array.from({ length: resized }, (_, i) => {
    const ratio = length / resized;
    if (ratio <= 1) {
      const at = Math.max((i + 0.5) * ratio - 0.5, 0), low = Math.floor(at);
      return [[low, 1 - (at - low)], [Math.min(low + 1, length - 1), at - low]];
    }
    const [start, end, pairs] = [i * ratio, Math.min((i + 1) * ratio, length), []];
    for (let j = Math.floor(start); j < end; j++)
      pairs.push([j, (Math.min(end, j + 1) - Math.max(start, j)) / ratio]);
    return pairs;
  });
}

/** ImageData -> input (3 * H * W) RGB in 0..1, its scale and its border in x, y, x, y. */
function letterbox({ data, width: w, height: h }, height, width) {
  const scale = Math.min(height / h, width / w);
  const [newW, newH] = [w, h].map((side) => Math.max(round(side * scale), 1));
  const [left, top] = [(width - newW) >> 1, (height - newH) >> 1];
  const [columns, rows] = [shares(w, newW), shares(h, newH)];
  const images = new Float32Array(3 * height * width).fill(GRAY / 255), narrow = new Float32Array(newW * h);
  for (let channel = 0; channel < 3; channel++) {
    narrow.fill(0);
    for (let y = 0; y < h; y++)
      for (let x = 0; x < newW; x++)
        for (const [j, share] of columns[x]) narrow[y * newW + x] += share * data[4 * (y * w + j) + channel];
    for (let y = 0; y < newH; y++)
      for (let x = 0; x < newW; x++) {
        let value = 0;
        for (const [j, share] of rows[y]) value += share * narrow[j * newW + x];
        images[(channel * height + top + y) * width + left + x] = round(value) / 255;
      }
  }
  return [images, [newW / w, newH / h, newW / w, newH / h], [left, top, left, top]];
}

/** Tensor (1, N, 5 + classes) -> those above the confidence, [x1, y1, x2, y2, confidence, class] each. */
function decode({ data, dims }, conf) {
  const boxes = [], columns = dims[2];
  for (let row = 0; row < data.length; row += columns) {
    const [cx, cy, w, h, objectness, ...scores] = data.subarray(row, row + columns);
    const best = Math.max(...scores);
    if (objectness * best > conf)
      boxes.push([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, objectness * best, scores.indexOf(best)]);
  }
  return boxes;
}

/** Non-maximum suppression: boxes -> those that overlap no better one of their class, best first. */
function suppress(boxes, iou) {
  const kept = [], area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  for (const box of boxes.toSorted((a, b) => b[4] - a[4])) {
    const overlaps = kept.some((best) => {
      const w = Math.min(best[2], box[2]) - Math.max(best[0], box[0]);
      const h = Math.min(best[3], box[3]) - Math.max(best[1], box[1]);
      const shared = Math.max(w, 0) * Math.max(h, 0);
      return best[5] === box[5] && shared > iou * (area(best) + area(box) - shared);
    });
    if (!overlaps) kept.push(box);
  }
  return kept;
}

/** Canvas -> [x1, y1, x2, y2 in pixels of the canvas, confidence, class] each. */
async function detect(session, canvas, { conf, iou, tile, overlap }) {
  const [, , height, width] = session.inputMetadata[0].shape, boxes = [];
  const side = tile || Math.max(canvas.width, canvas.height), context = canvas.getContext("2d");
  for (const y of tileStarts(canvas.height, side, overlap))
    for (const x of tileStarts(canvas.width, side, overlap)) {
      const w = Math.min(side, canvas.width), h = Math.min(side, canvas.height);
      const [images, scale, border] = letterbox(context.getImageData(x, y, w, h), height, width);
      const outputs = await session.run({ images: new ort.Tensor("float32", images, [1, 3, height, width]) });
      for (const box of suppress(decode(outputs.output0, conf), iou)) {
        const [x1, y1, x2, y2] = [0, 1, 2, 3].map((i) => (box[i] - border[i]) / scale[i]);
        const [toX, toY] = [(at) => x + Math.min(Math.max(at, 0), w), (at) => y + Math.min(Math.max(at, 0), h)];
        boxes.push([toX(x1), toY(y1), toX(x2), toY(y2), box[4], box[5]]);
      }
    }
  return suppress(boxes, iou); // objects in the overlap of two tiles
}

const form = document.querySelector("form"), canvas = document.querySelector("canvas");
const say = (text) => (document.querySelector("output").textContent = text);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  say("");
  show().catch((error) => say(error.message));
});

/** Detect with the file, the image and the numbers of the form, and draw and list the boxes. */
async function show() {
  const { weights, image, ...options } = Object.fromEntries(new FormData(form));
  for (const name in options) options[name] = Number(options[name]);
  const bitmap = await createImageBitmap(image);
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const session = await ort.InferenceSession.create(new Uint8Array(await weights.arrayBuffer()));
  const boxes = await detect(session, canvas, options);
  [context.strokeStyle, context.lineWidth] = ["red", 2];
  for (const [x1, y1, x2, y2] of boxes) context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  const line = ([...box]) => [box[5], box[4].toFixed(4), ...box.slice(0, 4).map((at) => at.toFixed(2))].join(" ");
  document.querySelector("pre").textContent = boxes.map(line).join("\n");
  say(`${boxes.length} objects`);
}
