#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "App.h"

const std::array<std::string, 8> SYMBOLS = {"ACME", "BOLT", "CORE", "DUNE",
                                            "ECHO", "FLUX", "GALE", "HIVE"};

struct Client {
    std::vector<std::string> wanted;
};

struct Quote {
    uint64_t number = 0, price_cents = 10000;
};

class Market {
  public:
    std::string last(size_t at) {
        std::lock_guard lock(mutex);
        return tick(at);
    }

    std::string trade(size_t at) {
        std::lock_guard lock(mutex);
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        uint64_t moved = quotes[at].price_cents + chance % 21;
        quotes[at].price_cents = moved > 11 ? moved - 10 : 1;
        quotes[at].number++;
        return tick(at);
    }

  private:
    std::string tick(size_t at) {
        char cents[3];
        std::snprintf(cents, sizeof cents, "%02d", int(quotes[at].price_cents % 100));
        return SYMBOLS[at] + " " + std::to_string(quotes[at].number) + " " +
               std::to_string(quotes[at].price_cents / 100) + "." + cents;
    }

    std::mutex mutex;
    std::array<Quote, 8> quotes;
    uint64_t chance = 1;
};

int main(int argc, char **argv) {
    int port = argc > 1 ? std::stoi(argv[1]) : 8080;
    int rounds_per_second = argc > 2 ? std::stoi(argv[2]) : 10;
    Market market;
    auto subscribe = [&](auto *ws, std::string_view symbol) {
        for (size_t at = 0; at < SYMBOLS.size(); at++) {
            if (SYMBOLS[at] != symbol) continue;
            ws->subscribe(symbol);
            ws->send(market.last(at), uWS::OpCode::TEXT);
            return;
        }
        ws->send("there is no symbol " + std::string(symbol), uWS::OpCode::TEXT);
    };
    auto upgrade = [](auto *response, auto *request, auto *context) {
        Client client;
        std::string_view query = request->getQuery();
        while (!query.empty()) {
            auto pair = query.substr(0, query.find('&'));
            if (pair.starts_with("symbol=")) client.wanted.emplace_back(pair.substr(7));
            query.remove_prefix(std::min(pair.size() + 1, query.size()));
        }
        response->template upgrade<Client>(std::move(client),
                                           request->getHeader("sec-websocket-key"),
                                           request->getHeader("sec-websocket-protocol"),
                                           request->getHeader("sec-websocket-extensions"), context);
    };
    auto open = [&](auto *ws) {
        for (auto &symbol : ws->getUserData()->wanted) subscribe(ws, symbol);
    };
    auto message = [&](auto *ws, std::string_view text, uWS::OpCode) {
        if (text.starts_with('-')) {
            ws->unsubscribe(text.substr(1));
        } else if (text.starts_with('+')) {
            subscribe(ws, text.substr(1));
        } else {
            ws->send("say +SYMBOL or -SYMBOL", uWS::OpCode::TEXT);
        }
    };
    uWS::App app;
    // Beyond maxBackpressure it is the newest that is dropped; there is no way to drop the oldest.
    app.ws<Client>("/ticks", {.maxPayloadLength = 64,
                              .maxBackpressure = 16 << 10,
                              .closeOnBackpressureLimit = false,
                              .upgrade = upgrade,
                              .open = open,
                              .message = message})
        .listen(port, [&](auto *socket) {
            if (socket) std::cout << "ws://127.0.0.1:" << port << "/ticks" << std::endl;
        });
    auto *loop = uWS::Loop::get();
    std::thread publisher([&, loop] {
        for (;;) {
            for (size_t at = 0; at < SYMBOLS.size(); at++) {
                loop->defer([&, at, tick = market.trade(at)] {
                    app.publish(SYMBOLS[at], tick, uWS::OpCode::TEXT);
                });
            }
            std::this_thread::sleep_for(std::chrono::microseconds(1000000 / rounds_per_second));
        }
    });
    app.run();
}
