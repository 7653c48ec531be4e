#include <condition_variable>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>
#include <sqlite3.h>

#include "App.h"

using nlohmann::json;

// uWebSockets has no threads of its own for what blocks. One is enough for one database.
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

// The database. Its calls block: a `put` until the disk has it.
class Store {
  public:
    explicit Store(const char *file) {
        check(sqlite3_open(file, &database));
        query("CREATE TABLE IF NOT EXISTS pairs (key TEXT PRIMARY KEY, value TEXT)", {});
    }

    std::optional<std::string> obey(const json &request) {
        std::string op = request.at("op"), key = request.at("key");
        if (op == "get") return query("SELECT value FROM pairs WHERE key = ?", {key});
        if (op == "put") {
            return query("REPLACE INTO pairs VALUES (?, ?)", {key, request.at("value")});
        }
        if (op == "delete") return query("DELETE FROM pairs WHERE key = ?", {key});
        throw std::runtime_error("there is no such op");
    }

  private:
    std::optional<std::string> query(const char *sql, std::vector<std::string> values) {
        sqlite3_stmt *raw;
        check(sqlite3_prepare_v2(database, sql, -1, &raw, nullptr));
        std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt *)> statement(raw, sqlite3_finalize);
        for (size_t at = 0; at < values.size(); at++) {
            int size = int(values[at].size());
            check(sqlite3_bind_text(raw, int(at) + 1, values[at].data(), size, SQLITE_TRANSIENT));
        }
        int code = sqlite3_step(raw);
        if (code == SQLITE_DONE) return {};
        if (code != SQLITE_ROW) check(code);
        auto *text = reinterpret_cast<const char *>(sqlite3_column_text(raw, 0));
        return std::string(text, size_t(sqlite3_column_bytes(raw, 0)));
    }

    void check(int code) {
        if (code != SQLITE_OK) throw std::runtime_error(sqlite3_errmsg(database));
    }

    sqlite3 *database = nullptr;
};

struct Client {
    // Cleared when the connection has gone: answers may come later.
    std::shared_ptr<bool> is_open = std::make_shared<bool>(true);
};

int main(int argc, char **argv) {
    int port = argc > 1 ? std::stoi(argv[1]) : 8080;
    Store store(argc > 2 ? argv[2] : "values.db");
    Worker worker;
    auto *loop = uWS::Loop::get();
    auto message = [&, loop](auto *ws, std::string_view text, uWS::OpCode) {
        // A client that asks faster than the disk answers fills the queue: nothing bounds it here.
        worker.run([&store, loop, ws, text = std::string(text), open = ws->getUserData()->is_open] {
            json answer = {{"id", 0}};
            try {
                auto request = json::parse(text);
                answer["id"] = request.at("id");
                if (auto value = store.obey(request)) answer["value"] = *value;
            } catch (const std::exception &error) {
                answer["error"] = error.what();
            }
            loop->defer([ws, open, text = answer.dump()] {
                if (*open) ws->send(text, uWS::OpCode::TEXT);
            });
        });
    };
    auto close = [](auto *ws, int, std::string_view) { *ws->getUserData()->is_open = false; };
    uWS::App()
        .ws<Client>("/database",
                    {.maxPayloadLength = 1 << 20, .message = message, .close = close})
        .listen(port, [&](auto *socket) {
            if (socket) std::cout << "ws://127.0.0.1:" << port << "/database" << std::endl;
        })
        .run();
}
