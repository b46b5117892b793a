// What a program is told by its environment.
#pragma once

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "oncelog/v1/broker.pb.h"

struct Assignment {
  std::string address;
  std::string topic;
  int records;
  std::chrono::milliseconds timeout;

  explicit Assignment(const std::string& usual_address)
      : address(text("ONCELOG_ADDRESS", usual_address)),
        topic(text("ONCELOG_TOPIC", "cpp")),
        records(std::stoi(text("ONCELOG_RECORDS", "100"))),
        timeout(std::stoi(text("ONCELOG_TIMEOUT_MS", "5000"))) {}

  // A channel that sends nothing again on its own.
  std::shared_ptr<grpc::Channel> channel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }

  // The records to send, ten by ten, in order.
  std::vector<std::vector<oncelog::v1::Record>> tens() const {
    std::vector<std::vector<oncelog::v1::Record>> tens;
    for (int number = 0; number < records; number++) {
      if (number % 10 == 0) tens.emplace_back();
      tens.back().emplace_back().set_value("record " + std::to_string(number));
    }
    return tens;
  }

 private:
  static std::string text(const char* name, const std::string& usual) {
    const char* value = std::getenv(name);
    return value ? value : usual;
  }
};
