// AccessLog::Queue: from one worker to the log's thread. Records lie in small segments that go back and forth, so that memory
// follows the backlog and not the bound: a ring of 8192 records would come to 4 MB for each worker.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "proxy/access_log.hpp"

namespace postern {

class AccessLog::Queue {
 public:
  // Holds at most `bound` records.
  explicit Queue(std::size_t bound) : bound_(bound), head_(std::make_unique<Segment>()), tail_(head_.get()) {}
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  ~Queue() {
    delete spare_.load(std::memory_order_acquire);
    while (head_) head_ = std::move(head_->next);  // not by recursion
  }

  // The producer's. False: full (or out of memory), and the record is untouched. Allocates only while the backlog grows.
  bool push(AccessRecord&& record) {
    const std::uint64_t pushed = pushed_.load(std::memory_order_relaxed);
    if (pushed - popped_.load(std::memory_order_acquire) >= bound_) return false;
    if (tail_at_ == segment_records) {
      Segment* next = spare_.exchange(nullptr, std::memory_order_acq_rel);
      if (next == nullptr) next = new (std::nothrow) Segment;
      if (next == nullptr) return false;
      tail_->next.reset(next);  // seen by the consumer once it sees the record that follows
      tail_ = next;
      tail_at_ = 0;
    }
    tail_->records[tail_at_++] = std::move(record);
    // Sequentially consistent, as front() and the log's `sleeping` are: either the consumer sees this record before it sleeps, or
    // the producer sees that it sleeps.
    pushed_.store(pushed + 1, std::memory_order_seq_cst);
    return true;
  }

  // The consumer's. The oldest record, or nullptr.
  AccessRecord* front() {
    if (pushed_.load(std::memory_order_seq_cst) == popped_.load(std::memory_order_relaxed)) return nullptr;
    if (head_at_ == segment_records) {
      std::unique_ptr<Segment> emptied = std::exchange(head_, std::move(head_->next));
      delete spare_.exchange(emptied.release(), std::memory_order_acq_rel);
      head_at_ = 0;
    }
    return &head_->records[head_at_];
  }
  // REQUIRES: front() was not nullptr.
  void pop() {
    head_->records[head_at_++] = AccessRecord{};  // lets go of what the record keeps alive
    popped_.store(popped_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }

 private:
  static constexpr std::size_t segment_records = 32;
  struct Segment {
    std::array<AccessRecord, segment_records> records;
    std::unique_ptr<Segment> next;
  };
  static constexpr std::size_t cache_line = 64;

  const std::size_t bound_;
  std::atomic<Segment*> spare_{nullptr};  // the last one emptied, owned

  alignas(cache_line) std::unique_ptr<Segment> head_;  // the consumer's
  std::size_t head_at_ = 0;
  std::atomic<std::uint64_t> popped_{0};

  alignas(cache_line) Segment* tail_;  // the producer's
  std::size_t tail_at_ = 0;
  std::atomic<std::uint64_t> pushed_{0};
};

}  // namespace postern
