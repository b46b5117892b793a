// Calls Send, and says of each record whether it is in the log, is not, or nobody knows.

#include <iostream>
#include <optional>
#include <thread>

#include "assignment.hpp"
#include "google/rpc/status.pb.h"
#include "oncelog/v1/producer.grpc.pb.h"

namespace v1 = oncelog::v1;

constexpr int kAttempts = 10;

std::optional<v1::SendFailure> failure_of(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return std::nullopt;
  for (const auto& detail : details.details()) {
    if (v1::SendFailure failure; detail.UnpackTo(&failure)) return failure;
  }
  return std::nullopt;
}

std::vector<std::string> outcomes(const v1::SendFailure& failure, size_t count) {
  // What the failure does not speak of is unknown: its list may be cut.
  std::vector<std::string> told(count, "unknown");
  for (const auto& outcome : failure.outcomes()) {
    for (int index = 0; index < outcome.count(); index++) {
      std::string& record = told.at(outcome.first_index() + index);
      if (outcome.has_appended()) {
        const int64_t offset = outcome.appended().offset();  // -1: nobody knows where any of them is
        record = "appended " + std::to_string(offset < 0 ? offset : offset + index);
      }
      if (outcome.has_refused()) record = "refused " + outcome.refused().message();
    }
  }
  return told;
}

// The outcome of each record: "appended OFFSET", "refused WHY" or "unknown".
//
// A record whose outcome is unknown is in the log once or not at all. It is not sent again here, because that may make two of it.
// Give records an id of your own, in the key or in a header, if a reader has to tell.
std::vector<std::string> send(v1::ProducerService::Stub& producer, const v1::SendRequest& request, std::chrono::milliseconds timeout) {
  const size_t count = request.records_size();
  for (int attempt = 1;; attempt++) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    v1::SendResponse sent;
    const grpc::Status status = producer.Send(&context, request, &sent);
    if (status.ok()) {
      std::vector<std::string> told;
      for (const auto& record : sent.records()) told.push_back("appended " + std::to_string(record.offset()));
      return told;
    }
    const auto failure = failure_of(status);
    // The deadline, a broken connection, a killed service: they all look alike, whatever the code.
    if (!failure) return std::vector<std::string>(count, "unknown");
    // Together with a SendFailure these two mean that nothing of the request is in the log.
    const auto code = status.error_code();
    const bool is_harmless = code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::RESOURCE_EXHAUSTED;
    if (!is_harmless || attempt == kAttempts) return outcomes(*failure, count);
    std::this_thread::sleep_for(std::chrono::milliseconds(100 * attempt));
  }
}

int main() try {
  const Assignment assignment("127.0.0.1:50052");
  const auto producer = v1::ProducerService::NewStub(assignment.channel());
  int number = 0;
  for (const auto& records : assignment.tens()) {
    v1::SendRequest request;
    request.set_topic(assignment.topic);
    request.mutable_records()->Assign(records.begin(), records.end());
    for (const std::string& outcome : send(*producer, request, assignment.timeout)) {
      std::cout << number++ << " " << outcome << "\n";
    }
  }
} catch (const std::exception& error) {
  // Not ended by it: what was said is still written.
  std::cerr << error.what() << "\n";
  return 1;
}
