// Detect with an exported ONNX file in ONNX Runtime, with nothing of this project: see ../README.md.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>
#include <onnxruntime_cxx_api.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

constexpr int GRAY = 114;  // borders around a tile that is not as wide or high as the input

struct Box { cv::Rect2f place; float confidence; int category; };
struct Input { std::vector<float> images; cv::Point2f scale, border; };
struct Options { double conf, iou, tile, overlap; };

// An ONNX file, and the shape of its input: 1, 3, H, W.
struct Network {
  Ort::Env env;
  Ort::Session session;
  std::vector<int64_t> shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();

  explicit Network(const std::string& file) : session(env, file.c_str(), Ort::SessionOptions()) {}

  // (1, 3, H, W) RGB in 0..1 -> (N, 5 + classes) cx, cy, w, h, objectness, class scores.
  cv::Mat operator()(std::vector<float>& images) {
    const char *input = "images", *output = "output0";
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto tensor = Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), shape.data(), 4);
    auto outputs = session.Run(Ort::RunOptions(), &input, &tensor, 1, &output, 1);
    auto sizes = outputs[0].GetTensorTypeAndShapeInfo().GetShape();
    return cv::Mat(int(sizes[1]), int(sizes[2]), CV_32F, outputs[0].GetTensorMutableData<float>()).clone();
  }
};

// First pixels of the tiles along one side of an image, evenly spread.
std::vector<int> tile_starts(int length, int side, double overlap) {
  if (side >= length) return {0};
  std::vector<int> starts(size_t(std::ceil((length - side) / (side * (1 - overlap)) - 1e-9)) + 1);
  for (size_t i = 0; i < starts.size(); i++)
    starts[i] = int(std::floor(double(i) * (length - side) / double(starts.size() - 1) + 0.5));
  return starts;
}

// (h, w, 3) BGR -> input (1, 3, H, W), its scale and its border.
Input letterbox(const cv::Mat& tile, int height, int width) {
  double scale = std::min(double(height) / tile.rows, double(width) / tile.cols);
  auto resized_side = [=](int side) { return std::max(int(std::nearbyint(side * scale)), 1); };
  int w = resized_side(tile.cols), h = resized_side(tile.rows), x = (width - w) / 2, y = (height - h) / 2;
  cv::Mat canvas(height, width, CV_8UC3, cv::Scalar::all(GRAY));
  cv::Mat inside = canvas(cv::Rect(x, y, w, h));
  cv::resize(tile, inside, {w, h}, 0, 0, scale < 1 ? cv::INTER_AREA : cv::INTER_LINEAR);
  canvas.convertTo(canvas, CV_32F, 1 / 255.0);
  std::vector<float> images(3 * canvas.total());
  for (int i = 0; i < 3; i++)
    cv::extractChannel(canvas, cv::Mat(height, width, CV_32F, &images[i * canvas.total()]), 2 - i);
  return {images, cv::Point2f(float(w) / tile.cols, float(h) / tile.rows), cv::Point2f(x, y)};
}

// (N, 5 + classes) -> those above the confidence.
std::vector<Box> decode(const cv::Mat& output, double conf) {
  std::vector<Box> boxes;
  for (int i = 0; i < output.rows; i++) {
    const float *row = output.ptr<float>(i), *best = std::max_element(row + 5, row + output.cols);
    cv::Rect2f place(row[0] - row[2] / 2, row[1] - row[3] / 2, row[2], row[3]);
    if (row[4] * *best > conf) boxes.push_back({place, row[4] * *best, int(best - row - 5)});
  }
  return boxes;
}

// Non-maximum suppression: those that overlap no better one of their class, best first.
std::vector<Box> suppress(std::vector<Box> boxes, double iou) {
  std::stable_sort(boxes.begin(), boxes.end(), [](auto& a, auto& b) { return a.confidence > b.confidence; });
  std::vector<Box> kept;
  for (const Box& box : boxes) {
    auto overlaps = [&](const Box& best) {
      float shared = (best.place & box.place).area();
      return best.category == box.category && shared > iou * (best.place.area() + box.place.area() - shared);
    };
    if (std::none_of(kept.begin(), kept.end(), overlaps)) kept.push_back(box);
  }
  return kept;
}

// (H, W, 3) BGR -> boxes in pixels of the image.
std::vector<Box> detect(Network& network, const cv::Mat& image, const Options& options) {
  int side = options.tile > 0 ? int(options.tile) : std::max(image.rows, image.cols);
  std::vector<Box> boxes;
  for (int y : tile_starts(image.rows, side, options.overlap))
    for (int x : tile_starts(image.cols, side, options.overlap)) {
      cv::Mat tile = image(cv::Rect(x, y, std::min(side, image.cols), std::min(side, image.rows)));
      auto [images, scale, border] = letterbox(tile, int(network.shape[2]), int(network.shape[3]));
      for (Box& box : suppress(decode(network(images), options.conf), options.iou)) {
        cv::Point2f at = box.place.tl() - border;
        box.place = {at.x / scale.x, at.y / scale.y, box.place.width / scale.x, box.place.height / scale.y};
        box.place = (box.place & cv::Rect2f({0, 0}, tile.size())) + cv::Point2f(x, y);
        boxes.push_back(box);
      }
    }
  return suppress(boxes, options.iou);  // objects in the overlap of two tiles
}

int main(int count, char** values) try {
  cv::CommandLineParser given(count, values, "{@weights||an .onnx file of export.py}{@image||}"
      "{conf|0.25|smallest confidence}{iou|0.45|largest IoU of two boxes of a class}{tile|0|its side, pixels}"
      "{overlap|0.2|share of a side that two tiles have in common}{out||the image with its boxes}");
  auto get = [&](const char* name) { return given.get<double>(name); };
  cv::Mat image = cv::imread(given.get<std::string>("@image"));
  if (image.empty()) return given.printMessage(), std::fprintf(stderr, "no image\n"), 2;
  Network network(given.get<std::string>("@weights"));
  Options options{get("conf"), get("iou"), get("tile"), get("overlap")};
  for (auto& [at, score, category] : detect(network, image, options)) {
    std::printf("%d %.4f %.2f %.2f %.2f %.2f\n", category, score, at.x, at.y, at.br().x, at.br().y);
    cv::rectangle(image, at, {0, 0, 255}, 2);
  }
  if (given.has("out")) cv::imwrite(given.get<std::string>("out"), image);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 2;
}
