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
  const scale = Math.min(height / h, width / w), resized = (side) => Math.max(round(side * scale), 1);
  const newW = resized(w), newH = resized(h), left = (width - newW) >> 1, top = (height - newH) >> 1;
  const columns = shares(w, newW), rows = shares(h, newH);
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
      const side = (i) => Math.max(Math.min(best[i + 2], box[i + 2]) - Math.max(best[i], box[i]), 0);
      const shared = side(0) * side(1);
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
        const at = (i, start, side) => start + Math.min(Math.max((box[i] - border[i]) / scale[i], 0), side);
        boxes.push([at(0, x, w), at(1, y, h), at(2, x, w), at(3, y, h), box[4], box[5]]);
      }
    }
  return suppress(boxes, iou); // objects in the overlap of two tiles
}

const find = (tag) => document.querySelector(tag);
const [form, canvas, output, pre] = ["form", "canvas", "output", "pre"].map(find);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  output.value = "";
  show().catch((error) => (output.value = error.message));
});

/** Detect with the file, the image and the numbers of the form, and draw and list the boxes. */
async function show() {
  const { weights, image, ...options } = Object.fromEntries(new FormData(form));
  for (const name in options) options[name] = Number(options[name]);
  const bitmap = await createImageBitmap(image);
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const session = await ort.InferenceSession.create(await weights.arrayBuffer());
  const boxes = await detect(session, canvas, options);
  [context.strokeStyle, context.lineWidth] = ["red", 2];
  for (const [x1, y1, x2, y2] of boxes) context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  const line = (box) => [box[5], box[4].toFixed(4), ...box.slice(0, 4).map((at) => at.toFixed(2))].join(" ");
  pre.textContent = boxes.map(line).join("\n");
  output.value = `${boxes.length} objects`;
}
