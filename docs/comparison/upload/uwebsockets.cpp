#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <queue>
#include <random>
#include <string>
#include <thread>

#include "App.h"

namespace fs = std::filesystem;

const size_t FILE_BYTES = 1 << 30;
const size_t PIECE_BYTES = 1 << 20;

// uWebSockets has no threads of its own for what blocks.
class Worker {
  public:
    void run(std::function<void()> job) {
        std::lock_guard lock(mutex);
        jobs.push(std::move(job));
        ready.notify_one();
    }

  private:
    void work() {
        for (;;) {
            std::unique_lock lock(mutex);
            ready.wait(lock, [this] { return !jobs.empty(); });
            auto job = std::move(jobs.front());
            jobs.pop();
            lock.unlock();
            job();
        }
    }

    std::mutex mutex;
    std::condition_variable ready;
    std::queue<std::function<void()>> jobs;
    std::thread thread{[this] { work(); }};
};

struct Transfer {
    std::string name;
    fs::path path, part;
    size_t bytes = 0, told = 0;
    bool is_open = true, is_begun = false;
    std::fstream file;

    ~Transfer() {
        std::error_code ignored;
        fs::remove(part, ignored);
    }
};

struct Client {
    std::shared_ptr<Transfer> transfer;
};

using Socket = uWS::WebSocket<false, true, Client>;

bool is_name(std::string_view name) {
    if (name.empty() || name.size() > 100 || name.starts_with('.')) return false;
    for (unsigned char byte : name) {
        if (!std::isalnum(byte) && byte != '-' && byte != '_' && byte != '.') return false;
    }
    return true;
}

class Files {
  public:
    Files(fs::path directory) : directory(std::move(directory)) {}

    auto upgrade() {
        return [this](auto *response, auto *request, auto *context) {
            std::string name(request->getParameter(0));
            if (!is_name(name)) {
                response->writeStatus("400 Bad Request")->end();
                return;
            }
            auto transfer = std::make_shared<Transfer>();
            transfer->name = name;
            transfer->path = directory / name;
            transfer->part = directory / ("." + std::to_string(random()) + ".part");
            response->template upgrade<Client>(
                {transfer}, request->getHeader("sec-websocket-key"),
                request->getHeader("sec-websocket-protocol"),
                request->getHeader("sec-websocket-extensions"), context);
        };
    }

    // Binary messages of at most 1 MiB, then a text that ends the file: a message is always whole.
    // While they are written, more may come: nothing bounds the queue but the size of a file.
    void store(Socket *ws, std::string_view message, bool is_last) {
        auto transfer = ws->getUserData()->transfer;
        if (!is_last) transfer->bytes += message.size();
        if (transfer->bytes > FILE_BYTES) {
            ws->end(1009);
            return;
        }
        size_t bytes = transfer->bytes;
        auto *loop = uWS::Loop::get();
        worker.run([=, piece = std::string(is_last ? "" : message)] {
            if (!transfer->is_begun) {
                transfer->file.open(transfer->part, std::ios::out | std::ios::binary);
                transfer->is_begun = true;
            }
            transfer->file.write(piece.data(), std::streamsize(piece.size()));
            // It does not reach the disk for sure: the standard library has no fsync.
            if (is_last) transfer->file.close();
            std::error_code error;
            if (is_last && transfer->file) fs::rename(transfer->part, transfer->path, error);
            bool is_stored = transfer->file && !error;
            loop->defer([=] {
                if (!transfer->is_open) return;
                if (!is_stored) {
                    ws->send("not stored", uWS::OpCode::TEXT);
                    ws->end(1011);
                } else if (is_last) {
                    auto size = std::to_string(bytes) + " bytes";
                    ws->send("stored " + transfer->name + ", " + size, uWS::OpCode::TEXT);
                    ws->end(1000);
                } else if (bytes - transfer->told >= PIECE_BYTES) {
                    transfer->told = bytes;
                    ws->send(std::to_string(bytes) + " bytes", uWS::OpCode::TEXT);
                }
            });
        });
    }

    // Reads the next piece of a download and sends it; what follows waits for its being taken.
    void send(Socket *ws) {
        auto transfer = ws->getUserData()->transfer;
        auto *loop = uWS::Loop::get();
        worker.run([=, this] {
            bool is_first = !transfer->is_begun;
            if (is_first) transfer->file.open(transfer->path, std::ios::in | std::ios::binary);
            transfer->is_begun = true;
            std::string piece(64 << 10, '\0');
            bool is_found = transfer->file.is_open();
            transfer->file.read(piece.data(), std::streamsize(piece.size()));
            piece.resize(size_t(transfer->file.gcount()));
            bool is_last = transfer->file.eof();
            loop->defer([=, this] {
                if (!transfer->is_open) return;
                if (!is_found) return ws->end(1011);
                if (is_first && is_last) {
                    ws->send(piece, uWS::OpCode::BINARY);
                } else if (is_first) {
                    ws->sendFirstFragment(piece);
                } else if (is_last) {
                    ws->sendLastFragment(piece);
                } else {
                    ws->sendFragment(piece);
                }
                if (is_last) return ws->end(1000);
                if (ws->getBufferedAmount() == 0) send(ws);
            });
        });
    }

  private:
    fs::path directory;
    std::mt19937_64 random{std::random_device{}()};
    Worker worker;
};

int main(int argc, char **argv) {
    int port = argc > 1 ? std::stoi(argv[1]) : 8080;
    fs::path directory = argc > 2 ? argv[2] : "files";
    fs::create_directories(directory);
    Files files(directory);
    auto close = [](auto *ws, int, std::string_view) {
        ws->getUserData()->transfer->is_open = false;
    };
    auto store = [&](auto *ws, std::string_view message, uWS::OpCode code) {
        files.store(ws, message, code == uWS::OpCode::TEXT);
    };
    auto drain = [&](auto *ws) {
        if (ws->getBufferedAmount() == 0) files.send(ws);
    };
    uWS::App()
        .ws<Client>("/upload/:name", {.maxPayloadLength = PIECE_BYTES,
                                      .upgrade = files.upgrade(),
                                      .message = store,
                                      .close = close})
        .ws<Client>("/download/:name", {.upgrade = files.upgrade(),
                                        .open = [&](auto *ws) { files.send(ws); },
                                        .drain = drain,
                                        .close = close})
        .listen(port, [&](auto *socket) {
            if (socket) std::cout << "ws://127.0.0.1:" << port << "/upload/NAME" << std::endl;
        })
        .run();
}
