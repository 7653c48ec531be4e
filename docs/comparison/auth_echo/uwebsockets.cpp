#include <condition_variable>
#include <fstream>
#include <functional>
#include <iostream>
#include <mutex>
#include <optional>
#include <queue>
#include <string>
#include <thread>

#include "App.h"

struct Member {
    std::string name;
};

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

struct Upgrade {
    std::string token, key, protocol, extensions;
    us_socket_context_t *context;
    uWS::HttpResponse<false> *response;
    bool is_aborted = false;
};

std::string token_of(uWS::HttpRequest *request) {
    std::string_view value = request->getHeader("authorization");
    if (value.starts_with("Bearer ")) return std::string(value.substr(7));
    std::string_view cookies = request->getHeader("cookie");
    while (!cookies.empty()) {
        auto end = std::min(cookies.find(';'), cookies.size());
        auto pair = cookies.substr(0, end);
        pair.remove_prefix(std::min(pair.find_first_not_of(' '), pair.size()));
        if (pair.starts_with("token=")) return std::string(pair.substr(6));
        cookies.remove_prefix(std::min(end + 1, cookies.size()));
    }
    return {};
}

// Blocks.
std::optional<std::string> find(const std::string &file, const std::string &token, bool &failed) {
    std::ifstream members(file);
    failed = !members;
    for (std::string line; std::getline(members, line);) {
        auto space = line.find(' ');
        if (space != line.npos && line.substr(0, space) == token) return line.substr(space + 1);
    }
    return {};
}

int main(int argc, char **argv) {
    int port = argc > 1 ? std::stoi(argv[1]) : 8080;
    std::string file = argc > 2 ? argv[2] : "members.txt";
    Worker worker;
    auto *loop = uWS::Loop::get();
    auto upgrade = [&, loop](auto *response, auto *request, auto *context) {
        auto data = std::make_shared<Upgrade>(Upgrade{
            token_of(request),
            std::string(request->getHeader("sec-websocket-key")),
            std::string(request->getHeader("sec-websocket-protocol")),
            std::string(request->getHeader("sec-websocket-extensions")),
            context,
            response,
        });
        response->onAborted([data] { data->is_aborted = true; });
        worker.run([&file, loop, data] {
            bool failed = false;
            auto name = find(file, data->token, failed);
            loop->defer([data, name, failed] {
                if (data->is_aborted) return;
                data->response->cork([&] {
                    if (name) {
                        data->response->template upgrade<Member>(
                            {*name}, data->key, data->protocol, data->extensions, data->context);
                    } else if (failed) {
                        data->response->writeStatus("503 Service Unavailable")->end();
                    } else {
                        data->response->writeStatus("401 Unauthorized")
                            ->writeHeader("WWW-Authenticate", "Bearer")
                            ->end();
                    }
                });
            });
        });
    };
    auto echo = [](auto *ws, std::string_view message, uWS::OpCode code) {
        if (code == uWS::OpCode::TEXT) {
            ws->send(ws->getUserData()->name + ": " + std::string(message), code);
        } else {
            ws->send(message, code);
        }
    };
    uWS::App()
        .ws<Member>("/echo", {.upgrade = upgrade, .message = echo})
        .listen(port, [&](auto *socket) {
            if (socket) std::cout << "ws://127.0.0.1:" << port << "/echo" << std::endl;
        })
        .run();
}
