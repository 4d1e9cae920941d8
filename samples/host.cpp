// A C++ host: the objects of kiln.h behind a few lines of RAII, so that nothing is freed by hand and failures
// are exceptions with kiln's sentence. Runs the graph that digits.lua saved on images from IDX files, a
// thread for each of two halves.
//
//   hostpp digits.kiln IMAGES.idx3-ubyte LABELS.idx1-ubyte
//
// Prints how many of each digit are read right.
#include "kiln.h"
#include <array>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace kiln {

struct Free {
  void operator()(kiln_context *p) const { kiln_context_free(p); }
  void operator()(kiln_graph *p) const { kiln_graph_release(p); }
  void operator()(kiln_session *p) const { kiln_session_free(p); }
  void operator()(kiln_tensor *p) const { kiln_tensor_release(p); }
};

class Context {
public:
  Context() {
    std::array<char, 512> why{};
    kiln_context_options options{};
    options.size = sizeof options;
    options.threads = 1; // of one run: threads are ours
    kiln_context *made = nullptr;
    if (kiln_context_new(&options, &made, why.data(), why.size()) != KILN_OK)
      throw std::runtime_error(why.data());
    own.reset(made);
  }
  // For another thread; goes before the one it comes from.
  explicit Context(const Context &of) {
    kiln_context *made = nullptr;
    of.must(kiln_context_child(of.get(), &made));
    own.reset(made);
  }
  Context &operator=(const Context &) = delete;
  kiln_context *get() const { return own.get(); }
  void must(kiln_status status) const {
    if (status != KILN_OK) throw std::runtime_error(kiln_error(get()));
  }

private:
  std::unique_ptr<kiln_context, Free> own;
};

// Immutable and counted: any thread may hold it.
class Graph {
public:
  Graph(const Context &ctx, const std::string &path) {
    kiln_graph *made = nullptr;
    ctx.must(kiln_graph_load(ctx.get(), path.c_str(), nullptr, &made));
    own = std::shared_ptr<kiln_graph>(made, Free());
  }
  kiln_graph *get() const { return own.get(); }

private:
  std::shared_ptr<kiln_graph> own;
};

class Session {
public:
  Session(const Context &ctx, const Graph &graph) {
    kiln_session *made = nullptr;
    ctx.must(kiln_session_new(ctx.get(), graph.get(), &made));
    own.reset(made);
  }
  void set(const char *name, kiln_tensor *t) { must(kiln_session_set_tensor(own.get(), name, t)); }
  void run() { must(kiln_session_run(own.get())); }
  std::int64_t integer(const char *name) {
    std::int64_t i = 0;
    must(kiln_session_get_integer(own.get(), name, &i));
    return i;
  }

private:
  void must(kiln_status status) const {
    if (status != KILN_OK) throw std::runtime_error(kiln_session_error(own.get()));
  }
  std::unique_ptr<kiln_session, Free> own;
};

// A tensor over numbers of the host, which must outlive it: writing to them is enough for the next run.
std::unique_ptr<kiln_tensor, Free> wrap(const Context &ctx, const std::vector<std::int64_t> &sizes,
                                        float *numbers) {
  kiln_tensor *made = nullptr;
  ctx.must(kiln_tensor_wrap(ctx.get(), KILN_FLOAT32, static_cast<int>(sizes.size()), sizes.data(), numbers,
                            nullptr, nullptr, &made));
  return std::unique_ptr<kiln_tensor, Free>(made);
}

} // namespace kiln

namespace {

constexpr std::size_t Pixels = 64, Digits = 10;

// What follows the header of an IDX file.
std::vector<unsigned char> read_idx(const std::string &path, std::size_t header) {
  std::ifstream file(path, std::ios::binary);
  std::vector<unsigned char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.size() <= header) throw std::runtime_error(path + ": cannot be read");
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(header));
  return bytes;
}

struct Part {
  std::size_t begin = 0, end = 0;
  std::array<int, Digits> right{}, all{};
  std::exception_ptr failure;
};

void classify(const kiln::Context &of, const kiln::Graph &graph, const std::vector<unsigned char> &images,
              const std::vector<unsigned char> &labels, Part &part) try {
  const kiln::Context ctx(of);
  kiln::Session session(ctx, graph);
  std::array<float, Pixels> image{};
  const auto x = kiln::wrap(ctx, {1, 1, 8, 8}, image.data());
  session.set("x", x.get());
  for (std::size_t i = part.begin; i < part.end; i++) {
    for (std::size_t k = 0; k < Pixels; k++) image[k] = static_cast<float>(images[Pixels * i + k]) / 16.0F;
    session.run();
    const std::size_t digit = labels[i];
    part.all.at(digit)++;
    part.right.at(digit) +=
        session.integer("1") == static_cast<std::int64_t>(digit) + 1; // classes count from 1
  }
} catch (...) {
  part.failure = std::current_exception();
}

} // namespace

int main(int argc, char **argv) try {
  if (argc < 4) throw std::runtime_error("usage: hostpp MODEL.kiln IMAGES LABELS");
  const auto images = read_idx(argv[2], 16), labels = read_idx(argv[3], 8);
  if (images.size() != Pixels * labels.size()) throw std::runtime_error("images and labels do not match");
  const kiln::Context ctx;
  const kiln::Graph graph(ctx, argv[1]);

  Part parts[2];
  parts[0].end = parts[1].begin = labels.size() / 2;
  parts[1].end = labels.size();
  std::thread other([&] { classify(ctx, graph, images, labels, parts[1]); });
  classify(ctx, graph, images, labels, parts[0]);
  other.join();
  for (const Part &part : parts)
    if (part.failure) std::rethrow_exception(part.failure);

  int right = 0;
  for (std::size_t d = 0; d < Digits; d++) {
    const int of_digit = parts[0].right[d] + parts[1].right[d];
    std::cout << d << ": " << of_digit << " of " << parts[0].all[d] + parts[1].all[d] << '\n';
    right += of_digit;
  }
  std::cout << right << " of " << labels.size() << " right\n";
} catch (const std::exception &e) {
  std::cerr << "hostpp: " << e.what() << '\n';
  return 1;
}
