// A doubly linked list whose hooks live in the elements: no allocation, and an element that dies leaves its list.
#pragma once

namespace postern {

class ListHook {
 public:
  ListHook() = default;
  ListHook(const ListHook&) = delete;
  ListHook& operator=(const ListHook&) = delete;
  ~ListHook() { unlink(); }

  bool linked() const { return next_ != nullptr; }
  void unlink() {
    if (!linked()) return;
    next_->previous_ = previous_;
    previous_->next_ = next_;
    next_ = previous_ = nullptr;
  }

 private:
  template <class T>
  friend class IntrusiveList;
  ListHook* next_ = nullptr;
  ListHook* previous_ = nullptr;
};

// T derives from ListHook. The list does not own its elements.
template <class T>
class IntrusiveList {
 public:
  IntrusiveList() { end_.next_ = end_.previous_ = &end_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    while (!empty()) front().unlink();
    end_.next_ = end_.previous_ = nullptr;
  }

  bool empty() const { return end_.next_ == &end_; }
  // REQUIRES: !empty()
  T& front() { return static_cast<T&>(*end_.next_); }
  // REQUIRES: the element is in no list.
  void push_back(T& element) { insert_before(end_, element); }
  // Moves every element of `other` to the end of this list.
  void splice_back(IntrusiveList& other) {
    if (other.empty()) return;
    ListHook* first = other.end_.next_;
    ListHook* last = other.end_.previous_;
    first->previous_ = end_.previous_;
    end_.previous_->next_ = first;
    last->next_ = &end_;
    end_.previous_ = last;
    other.end_.next_ = other.end_.previous_ = &other.end_;
  }
  // Calls f(element) for each; f may unlink or destroy the element it is given, and no other.
  template <class F>
  void for_each(F&& f) {
    for (ListHook* at = end_.next_; at != &end_;) {
      ListHook* next = at->next_;
      f(static_cast<T&>(*at));
      at = next;
    }
  }

 private:
  static void insert_before(ListHook& where, ListHook& element) {
    element.previous_ = where.previous_;
    element.next_ = &where;
    where.previous_->next_ = &element;
    where.previous_ = &element;
  }
  ListHook end_;
};

}  // namespace postern
