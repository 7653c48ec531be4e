#include <iostream>
#include <map>
#include <string>

#include "App.h"

struct Guest {
    std::string name, room;
};

// Control characters could break a line; characters of UTF-8 begin with other bytes than 10xxxxxx.
bool is_name(std::string_view name) {
    size_t count = 0;
    for (unsigned char byte : name) {
        if (byte < 0x20 || byte == 0x7f) return false;
        count += (byte & 0xc0) != 0x80;
    }
    return count >= 1 && count <= 24;
}

int main(int argc, char **argv) {
    int port = argc > 1 ? std::stoi(argv[1]) : 8080;
    std::map<std::string, int> counts;
    uWS::App app;
    auto here = [](int count) { return std::to_string(count) + " are here"; };
    auto upgrade = [](auto *response, auto *request, auto *context) {
        std::string name(request->getQuery("name"));
        if (!is_name(name)) {
            response->writeStatus("400 Bad Request")->end();
            return;
        }
        // The room's name stays percent-encoded.
        response->template upgrade<Guest>({name, std::string(request->getParameter(0))},
                                          request->getHeader("sec-websocket-key"),
                                          request->getHeader("sec-websocket-protocol"),
                                          request->getHeader("sec-websocket-extensions"), context);
    };
    auto open = [&](auto *ws) {
        auto &[name, room] = *ws->getUserData();
        ws->subscribe(room);
        auto count = here(++counts[room]);
        // To all but itself.
        ws->publish(room, "* " + name + " joined, " + count, uWS::OpCode::TEXT);
        ws->send("* welcome to " + room + ", " + name + ", " + count, uWS::OpCode::TEXT);
    };
    auto message = [&](auto *ws, std::string_view text, uWS::OpCode code) {
        if (code != uWS::OpCode::TEXT) {
            ws->send("* only text is understood here", uWS::OpCode::TEXT);
            return;
        }
        auto &[name, room] = *ws->getUserData();
        app.publish(room, name + ": " + std::string(text), uWS::OpCode::TEXT);
    };
    auto close = [&](auto *ws, int, std::string_view) {
        auto &[name, room] = *ws->getUserData();
        int count = --counts[room];
        if (count == 0) counts.erase(room);
        app.publish(room, "* " + name + " left, " + here(count), uWS::OpCode::TEXT);
    };
    app.ws<Guest>("/rooms/:room", {.maxPayloadLength = 4 << 10,
                                   .upgrade = upgrade,
                                   .open = open,
                                   .message = message,
                                   .close = close})
        .listen(port, [&](auto *socket) {
            if (socket) {
                std::cout << "ws://127.0.0.1:" << port << "/rooms/lobby?name=a" << std::endl;
            }
        })
        .run();
}
