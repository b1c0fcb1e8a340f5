// A thread that no signal is delivered to: those are the main thread's.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <string>
#include <thread>
#include <utility>

namespace postern {

// `name` is shown by ps and debuggers; 15 characters of it. Faults stay the thread's own.
template <class Body>
std::thread start_without_signals(const std::string& name, Body body) {
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(body));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread.native_handle(), name.substr(0, 15).c_str());
  return thread;
}

}  // namespace postern
