// Detect with an exported ONNX file in ONNX Runtime, with nothing of this project: see ../README.md.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

constexpr int GRAY = 114;  // borders around a tile that is not as wide or high as the input

struct Box { cv::Rect2f place; float confidence; int category; };
struct Input { std::vector<float> images; float scale_x, scale_y; cv::Point2f border; };
struct Options { float conf, iou; int tile; float overlap; };

// An ONNX file, and the height and width of its input.
struct Network {
  Ort::Env env;
  Ort::Session session;
  std::vector<int64_t> shape;  // 1, 3, H, W

  explicit Network(const std::string& file) : session(env, file.c_str(), Ort::SessionOptions()) {
    shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  }

  // (1, 3, H, W) RGB in 0..1 -> (N, 5 + classes) cx, cy, w, h, objectness, class scores.
  cv::Mat operator()(std::vector<float>& images) {
    const char *input = "images", *output = "output0";
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto tensor =
        Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), shape.data(), shape.size());
    auto outputs = session.Run(Ort::RunOptions(), &input, &tensor, 1, &output, 1);
    auto sizes = outputs[0].GetTensorTypeAndShapeInfo().GetShape();
    return cv::Mat(int(sizes[1]), int(sizes[2]), CV_32F, outputs[0].GetTensorMutableData<float>()).clone();
  }
};

// First pixels of the tiles along one side of an image, evenly spread.
std::vector<int> tile_starts(int length, int side, double overlap) {
  if (side >= length) return {0};
  std::vector<int> starts(int(std::ceil((length - side) / (side * (1 - overlap)) - 1e-9)) + 1);
  for (size_t i = 0; i < starts.size(); i++)
    starts[i] = int(std::floor(double(i) * (length - side) / double(starts.size() - 1) + 0.5));
  return starts;
}

// (h, w, 3) BGR -> input (1, 3, H, W), its scale and its border.
Input letterbox(const cv::Mat& tile, int height, int width) {
  double scale = std::min(double(height) / tile.rows, double(width) / tile.cols);
  auto resized_side = [&](int side) { return std::max(int(std::nearbyint(side * scale)), 1); };
  cv::Size size(resized_side(tile.cols), resized_side(tile.rows));
  cv::Mat resized, canvas(height, width, CV_8UC3, cv::Scalar::all(GRAY));
  cv::resize(tile, resized, size, 0, 0, scale < 1 ? cv::INTER_AREA : cv::INTER_LINEAR);
  int left = (width - size.width) / 2, top = (height - size.height) / 2;
  resized.copyTo(canvas(cv::Rect({left, top}, size)));
  Input input{std::vector<float>(3 * height * width), float(size.width) / tile.cols,
              float(size.height) / tile.rows, cv::Point2f(left, top)};
  canvas.convertTo(canvas, CV_32F, 1 / 255.0);
  for (int channel = 0; channel < 3; channel++)
    cv::extractChannel(canvas, cv::Mat(height, width, CV_32F, &input.images[channel * height * width]), 2 - channel);
  return input;
}

// (N, 5 + classes) -> those above the confidence.
std::vector<Box> decode(const cv::Mat& output, float conf) {
  std::vector<Box> boxes;
  for (int i = 0; i < output.rows; i++) {
    const float *row = output.ptr<float>(i), *best = std::max_element(row + 5, row + output.cols);
    if (row[4] * *best > conf)
      boxes.push_back({{row[0] - row[2] / 2, row[1] - row[3] / 2, row[2], row[3]}, row[4] * *best, int(best - row - 5)});
  }
  return boxes;
}

// Non-maximum suppression: those that overlap no better one of their class, best first.
std::vector<Box> suppress(std::vector<Box> boxes, float iou) {
  std::stable_sort(boxes.begin(), boxes.end(), [](auto& a, auto& b) { return a.confidence > b.confidence; });
  std::vector<Box> kept;
  for (const Box& box : boxes) {
    auto is_same = [&](const Box& best) {
      float shared = (best.place & box.place).area();
      return best.category == box.category && shared > iou * (best.place.area() + box.place.area() - shared);
    };
    if (std::none_of(kept.begin(), kept.end(), is_same)) kept.push_back(box);
  }
  return kept;
}

// (H, W, 3) BGR -> boxes in pixels of the image.
std::vector<Box> detect(Network& network, const cv::Mat& image, const Options& options) {
  int side = options.tile ? options.tile : std::max(image.rows, image.cols);
  std::vector<Box> boxes;
  for (int y : tile_starts(image.rows, side, options.overlap))
    for (int x : tile_starts(image.cols, side, options.overlap)) {
      cv::Mat tile = image(cv::Rect(x, y, std::min(side, image.cols), std::min(side, image.rows)));
      Input input = letterbox(tile, int(network.shape[2]), int(network.shape[3]));
      for (Box& box : suppress(decode(network(input.images), options.conf), options.iou)) {
        cv::Point2f corner = box.place.tl() - input.border;
        cv::Rect2f place(corner.x / input.scale_x, corner.y / input.scale_y,
                         box.place.width / input.scale_x, box.place.height / input.scale_y);
        place &= cv::Rect2f({0, 0}, tile.size());
        boxes.push_back({place + cv::Point2f(x, y), box.confidence, box.category});
      }
    }
  return suppress(boxes, options.iou);  // objects in the overlap of two tiles
}

int main(int count, char** values) try {
  cv::CommandLineParser parser(count, values,
      "{@weights||an .onnx file of export.py}{@image||}{conf|0.25|smallest confidence}"
      "{iou|0.45|largest IoU of two boxes of a class}{tile|0|side of a tile, pixels; 0 for none}"
      "{overlap|0.2|share of a side that two tiles have in common}{out||write the image with its boxes here}");
  if (!parser.has("@image")) return parser.printMessage(), 2;
  Options options{parser.get<float>("conf"), parser.get<float>("iou"), parser.get<int>("tile"),
                  parser.get<float>("overlap")};
  Network network(parser.get<std::string>("@weights"));
  cv::Mat image = cv::imread(parser.get<std::string>("@image"));
  if (image.empty()) throw std::runtime_error(parser.get<std::string>("@image") + ": no image");
  for (const Box& box : detect(network, image, options)) {
    cv::Point2f low = box.place.tl(), high = box.place.br();
    std::printf("%d %.4f %.2f %.2f %.2f %.2f\n", box.category, box.confidence, low.x, low.y, high.x, high.y);
    cv::rectangle(image, low, high, {0, 0, 255}, 2);
  }
  if (parser.has("out")) cv::imwrite(parser.get<std::string>("out"), image);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
