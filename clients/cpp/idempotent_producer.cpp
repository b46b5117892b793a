// An idempotent producer: every record is in the log once and in order, whatever fails on the way.
//
// Each batch gets a tag, which is the producer's id and epoch and the sequence of its first record. A tag is for ever: a batch
// whose outcome is not known is sent again, unchanged, and the broker recognises it. When sending again does not help, a recovery
// tells what is in the log, and only what certainly is not gets a new tag. The numbers R1 to R13 are those of proto/RULES.md.

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <iomanip>
#include <iostream>
#include <mutex>
#include <optional>
#include <queue>
#include <random>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "assignment.hpp"
#include "oncelog/v1/broker.grpc.pb.h"

namespace v1 = oncelog::v1;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

enum class Outcome {
  kPending,
  kAppended,  // in the log, at `offset`; at -1: the broker has forgotten where
  kRefused,   // certainly not in the log
  kUnknown,   // in the log at most once; nobody will ever know
};

// Written as a whole.
struct Batch {
  std::vector<v1::Record> records;
  Outcome outcome = Outcome::kPending;
  int64_t offset = -1;
  std::string refusal;

  int64_t base = 0;
  int attempts = 0;
  bool is_out = false;
  Clock::time_point due;

  int64_t end() const { return base + static_cast<int64_t>(records.size()); }
  void appended(int64_t at) { outcome = Outcome::kAppended, offset = at; }
};

// A call of `Produce`, and later its answer. It outlives the batch's interest in it.
struct Call {
  int64_t base;
  int64_t floor;
  grpc::ClientContext context;
  v1::ProduceRequest request;
  v1::ProduceResponse response;
  grpc::Status status;
};

// Where calls arrive when they are answered; one for each epoch, so no answer is taken for that of another (R6).
class Answers {
 public:
  void push(std::shared_ptr<Call> call) {
    std::lock_guard lock(mutex_);
    calls_.push(std::move(call));
    changed_.notify_one();
  }

  // None: nothing came before `until`.
  std::shared_ptr<Call> pop(Clock::time_point until) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_until(lock, until, [this] { return !calls_.empty(); })) return nullptr;
    auto call = std::move(calls_.front());
    calls_.pop();
    return call;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::queue<std::shared_ptr<Call>> calls_;
};

// 100 ms, doubled each time, up to 1 s; with 20 % jitter.
milliseconds backoff(int attempts) {
  thread_local std::mt19937 random{std::random_device{}()};
  const int most = std::min(1'000, 50 << std::min(attempts, 5));
  return milliseconds(std::lround(most * std::uniform_real_distribution(0.8, 1.2)(random)));
}

// Writes to one partition. Belongs to one thread.
class IdempotentProducer {
 public:
  IdempotentProducer(std::shared_ptr<grpc::Channel> channel, std::string topic, int partition, milliseconds timeout)
      : broker_(v1::BrokerService::NewStub(channel)), topic_(std::move(topic)), partition_(partition), timeout_(timeout) {}

  ~IdempotentProducer() { end_epoch(); }

  // Writes what `next` gives, until it gives nothing, and hands it on in its order, each when its outcome is known.
  void write(const std::function<std::optional<Batch>()>& next, const std::function<void(const Batch&)>& resolved) {
    fresh_id();
    for (bool is_more = true;;) {
      while (!window_.empty() && window_.front().outcome != Outcome::kPending) {
        resolved(window_.front());
        window_.pop_front();
      }
      while (is_more && window_.size() < kWindow) {
        auto batch = next();
        if ((is_more = batch.has_value())) tag(window_.emplace_back(std::move(*batch)));
      }
      if (window_.empty()) return;
      if (auto call = answers_->pop(send_what_is_due())) {
        std::erase(calls_, call);
        hear(*call);
      }
    }
  }

 private:
  static constexpr size_t kWindow = 5;

  void tag(Batch& batch) {
    batch.base = next_;
    batch.attempts = 0;
    batch.is_out = false;
    batch.due = Clock::now();
    next_ = batch.end();
  }

  // Returns when something else is due.
  Clock::time_point send_what_is_due() {
    auto next_due = Clock::now() + std::chrono::hours(1);
    for (Batch& batch : window_) {
      if (batch.outcome != Outcome::kPending || batch.is_out) continue;
      if (batch.due <= Clock::now()) {
        send(batch);
      } else {
        next_due = std::min(next_due, batch.due);
      }
    }
    return next_due;
  }

  void send(Batch& batch) {
    batch.is_out = true;
    auto call = std::make_shared<Call>();
    call->base = batch.base;
    call->floor = window_.front().base;  // R7: all below it was known to be in the log when this call was made
    call->request.set_producer_id(id_);
    call->request.set_producer_epoch(epoch_);
    v1::Batch& tagged = *call->request.add_batches();
    tagged.set_topic(topic_);
    tagged.set_partition(partition_);
    tagged.set_base_sequence(batch.base);
    tagged.mutable_records()->Assign(batch.records.begin(), batch.records.end());
    call->context.set_deadline(std::chrono::system_clock::now() + timeout_);
    calls_.push_back(call);
    broker_->async()->Produce(&call->context, &call->request, &call->response, [call, answers = answers_](grpc::Status status) {
      call->status = std::move(status);
      answers->push(call);
    });
  }

  // Decides what an answer means. Whatever is not clearly one leaves the batch in doubt: it is sent again, unchanged.
  void hear(const Call& call) {
    // It is there: only a recovery takes it away, and that ends the epoch and with it the call.
    const auto is_it = [&](const Batch& batch) { return batch.outcome == Outcome::kPending && batch.base == call.base; };
    Batch& batch = *std::ranges::find_if(window_, is_it);
    batch.is_out = false;
    switch (call.status.error_code()) {
      case grpc::StatusCode::OK:
        break;
      case grpc::StatusCode::INVALID_ARGUMENT:
      case grpc::StatusCode::OUT_OF_RANGE:
      case grpc::StatusCode::FAILED_PRECONDITION:
        return refuse(batch, call.status.error_message());
      default:
        return again(batch);
    }
    const auto result = call.response.results_size() > 0 ? call.response.results(0) : v1::BatchResult();
    if (result.has_ack()) return acknowledge(batch, result.ack().base_offset());
    if (!result.has_error()) return again(batch);
    const int64_t expected = result.error().expected_sequence();
    switch (result.error().code()) {
      case v1::ERROR_CODE_DUPLICATE_SEQUENCE_NUMBER:
        return acknowledge(batch, -1);
      case v1::ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER:
        if (expected < call.floor) return recover();
        if (batch.base < expected && expected < batch.end()) return lose_id();  // somebody else writes with this id
        return again(batch);                                                   // its predecessors are still on their way
      case v1::ERROR_CODE_SEQUENCE_CONFLICT:
        return lose_id();
      case v1::ERROR_CODE_INVALID_PRODUCER_EPOCH:
      case v1::ERROR_CODE_UNKNOWN_PRODUCER_ID:
        return recover();
      case v1::ERROR_CODE_REQUEST_TIMED_OUT:
      case v1::ERROR_CODE_BROKER_NOT_AVAILABLE:
      case v1::ERROR_CODE_KAFKA_STORAGE_ERROR:
      case v1::ERROR_CODE_RESOURCE_EXHAUSTED:
        return again(batch);
      default:
        return refuse(batch, result.error().message());
    }
  }

  void acknowledge(Batch& batch, int64_t offset) {
    batch.appended(offset);
    acknowledged_ = std::max(acknowledged_, batch.end());
  }

  void again(Batch& batch) { batch.due = Clock::now() + backoff(++batch.attempts); }

  // Not final: a copy may be in the log (R5).
  void refuse(Batch& batch, const std::string& why) {
    batch.refusal = why.empty() ? "no reason was given" : why;
    recover();
  }

  // Fences all that is on its way, and learns what of it is in the log (R2, R8).
  void recover() {
    end_epoch();
    v1::InitProducerIdRequest question;
    question.set_producer_id(id_);
    question.set_producer_epoch(epoch_);
    question.set_recovery_token(token_);
    const auto answer = init(question);
    if (!answer) return lose_id();
    const auto& partitions = answer->partitions();
    const auto mine = std::ranges::find_if(partitions, [this](auto& p) { return p.topic() == topic_ && p.partition() == partition_; });
    // R3: absent means that nothing of this epoch is there.
    const auto told = mine == partitions.end() ? v1::InitProducerIdResponse::Partition() : *mine;
    if (told.next_sequence() < acknowledged_) {
      throw std::runtime_error("acknowledged records are gone from sequence " + std::to_string(told.next_sequence()) + " on");
    }
    if (told.next_sequence() > next_) return lose_id();
    begin(*answer);
    for (Batch& batch : window_) {
      if (batch.outcome != Outcome::kPending) continue;
      if (batch.end() <= told.next_sequence()) {
        const auto entry = std::ranges::find(told.window(), batch.base, &v1::WindowEntry::base_sequence);
        batch.appended(entry == told.window().end() ? -1 : entry->base_offset());
      } else if (!batch.refusal.empty()) {
        batch.outcome = Outcome::kRefused;  // R5: now it is final
      } else {
        tag(batch);
      }
    }
  }

  // Whatever was sent under this id is in the log at most once, and nobody will ever know (R10).
  void lose_id() {
    end_epoch();
    for (Batch& batch : window_) {
      if (batch.outcome == Outcome::kPending) batch.outcome = Outcome::kUnknown;
    }
    fresh_id();
  }

  void fresh_id() {
    const auto answer = init({});
    if (!answer) throw std::runtime_error("the broker hands out no producer id");
    begin(*answer);
  }

  // The only place where an epoch is learned (R9).
  void begin(const v1::InitProducerIdResponse& answer) {
    id_ = answer.producer_id();
    epoch_ = answer.producer_epoch();
    next_ = acknowledged_ = 0;
  }

  // Repeats the same question until it is answered. None: the id expired, or another process recovered it.
  std::optional<v1::InitProducerIdResponse> init(const v1::InitProducerIdRequest& question) {
    for (int attempts = 1;; attempts++) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + timeout_);
      v1::InitProducerIdResponse answer;
      const grpc::Status status = broker_->InitProducerId(&context, question, &answer);
      switch (status.error_code()) {
        case grpc::StatusCode::OK:
          return answer;  // a producer that writes to one partition gets it in one page
        case grpc::StatusCode::NOT_FOUND:
        case grpc::StatusCode::FAILED_PRECONDITION:
          return std::nullopt;
        case grpc::StatusCode::INVALID_ARGUMENT:
          throw std::runtime_error(status.error_message());
        default:
          std::this_thread::sleep_for(backoff(attempts));
      }
    }
  }

  void end_epoch() {
    for (const auto& call : calls_) call->context.TryCancel();
    calls_.clear();
    answers_ = std::make_shared<Answers>();
  }

  static std::string random_token() {
    std::random_device random;
    std::ostringstream token;
    for (int word = 0; word < 4; word++) token << std::hex << std::setw(8) << std::setfill('0') << random();
    return token.str();
  }

  std::unique_ptr<v1::BrokerService::Stub> broker_;
  std::string topic_;
  int partition_;
  milliseconds timeout_;
  std::string token_ = random_token();  // R13: of this process alone
  int64_t id_ = 0;
  int epoch_ = 0;
  int64_t next_ = 0;
  int64_t acknowledged_ = 0;  // the highest end of a batch that was, in this epoch
  // R1: at most five tagged batches from the lowest unresolved one on, resolved ones in between included.
  std::deque<Batch> window_;
  std::vector<std::shared_ptr<Call>> calls_;
  std::shared_ptr<Answers> answers_ = std::make_shared<Answers>();
};

int main() try {
  const Assignment assignment("127.0.0.1:50051");
  IdempotentProducer producer(assignment.channel(), assignment.topic, 0, assignment.timeout);
  auto tens = assignment.tens();
  auto waiting = tens.begin();
  int number = 0;
  const auto next = [&]() -> std::optional<Batch> {
    if (waiting == tens.end()) return std::nullopt;
    Batch batch;
    batch.records = std::move(*waiting++);
    return batch;
  };
  producer.write(next, [&](const Batch& batch) {
    for (size_t index = 0; index < batch.records.size(); index++) {
      std::cout << number++;
      switch (batch.outcome) {
        case Outcome::kAppended:
          std::cout << " appended " << (batch.offset < 0 ? -1 : batch.offset + static_cast<int64_t>(index)) << "\n";
          break;
        case Outcome::kRefused:
          std::cout << " refused " << batch.refusal << "\n";
          break;
        default:
          std::cout << " unknown\n";
      }
    }
  });
} catch (const std::exception& error) {
  // Not ended by it: what was said is still written.
  std::cerr << error.what() << "\n";
  return 1;
}
