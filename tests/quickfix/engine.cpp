// One end of a FIX session, by QuickFIX. It reads commands from stdin and reports events on stdout, one a line.
//
//   engine initiator|acceptor SETTINGS     SETTINGS is a file in QuickFIX's format with one session
//
// Commands, each answered by `done` when the engine has taken it:
//   order PREFIX FIRST COUNT     COUNT NewOrderSingles as fast as possible, with ClOrdIDs from PREFIX-FIRST
//   cancel ID                    an OrderCancelRequest
//   quit                         logs out and ends; at the end of stdin the engine ends at once
//
// Events:
//   logon / logout               the session is up / is down, by a Logout or by the end of the connection
//   in TYPE ID DUP               a message came from the connection, before the session layer has read it
//   out TYPE ID DUP              a message was handed to the connection
//   taken TYPE ID DUP            the session layer accepted an application message
//   note TEXT                    a line of the engine's log
// TYPE is MsgType(35), ID ClOrdID(11) or `-`, DUP PossDupFlag(43), `Y` or `N`.

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>

#include <quickfix/Application.h>
#include <quickfix/Log.h>
#include <quickfix/MessageStore.h>
#include <quickfix/Session.h>
#include <quickfix/SessionSettings.h>
#include <quickfix/SocketInitiator.h>
#include <quickfix/ThreadedSocketAcceptor.h>
#include <quickfix/fix44/NewOrderSingle.h>
#include <quickfix/fix44/OrderCancelRequest.h>

namespace {

void tell(const std::string& line) {
  static std::mutex one_at_a_time;
  std::lock_guard<std::mutex> guard(one_at_a_time);
  std::puts(line.c_str());
  std::fflush(stdout);
}

// Value of the first field with this tag, or `otherwise`. For messages without data fields.
std::string field(const std::string& message, const std::string& tag, const std::string& otherwise) {
  const std::string start = "\x01" + tag + "=";
  const std::size_t at = message.find(start);
  if (at == std::string::npos) return otherwise;
  const std::size_t from = at + start.size();
  return message.substr(from, message.find('\x01', from) - from);
}

void tell_message(const std::string& what, const std::string& message) {
  tell(what + " " + field(message, "35", "?") + " " + field(message, "11", "-") + " " + field(message, "43", "N"));
}

class Log : public FIX::Log {
public:
  void clear() override {}
  void backup() override {}
  void onIncoming(const std::string& message) override { tell_message("in", message); }
  void onOutgoing(const std::string& message) override { tell_message("out", message); }
  void onEvent(const std::string& text) override { tell("note " + text); }
};

class Logs : public FIX::LogFactory {
public:
  FIX::Log* create() override { return new Log; }
  FIX::Log* create(const FIX::SessionID&) override { return new Log; }
  void destroy(FIX::Log* log) override { delete log; }
};

class Application : public FIX::Application {
public:
  void onCreate(const FIX::SessionID& id) override { session = id; }
  void onLogon(const FIX::SessionID&) override { tell("logon"); }
  void onLogout(const FIX::SessionID&) override { tell("logout"); }
  void toAdmin(FIX::Message&, const FIX::SessionID&) override {}
  void toApp(FIX::Message&, const FIX::SessionID&) noexcept override {}
  void fromAdmin(const FIX::Message&, const FIX::SessionID&) noexcept override {}
  void fromApp(const FIX::Message& message, const FIX::SessionID&) noexcept override {
    tell_message("taken", message.toString());
  }

  FIX::SessionID session;
};

void order(const FIX::SessionID& session, const std::string& id) {
  FIX44::NewOrderSingle order(FIX::ClOrdID(id), FIX::Side(FIX::Side_BUY), FIX::TransactTime(), FIX::OrdType(FIX::OrdType_LIMIT));
  order.set(FIX::Symbol("IBM"));
  order.set(FIX::OrderQty(100));
  order.set(FIX::Price(101.25));
  FIX::Session::sendToTarget(order, session);
}

void cancel(const FIX::SessionID& session, const std::string& id) {
  FIX44::OrderCancelRequest request(FIX::OrigClOrdID("R-1"), FIX::ClOrdID(id), FIX::Side(FIX::Side_BUY), FIX::TransactTime());
  request.set(FIX::Symbol("IBM"));
  FIX::Session::sendToTarget(request, session);
}

// Follows commands until `quit`. Returns false at the end of stdin.
bool obey(const FIX::SessionID& session) {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb, name;
    words >> verb >> name;
    if (verb == "order") {
      long first = 0, count = 0;
      words >> first >> count;
      for (long i = first; i < first + count; i++) order(session, name + "-" + std::to_string(i));
    } else if (verb == "cancel") {
      cancel(session, name);
    } else if (verb == "quit") {
      return true;
    } else {
      tell("note unknown command: " + line);
    }
    tell("done");
  }
  return false;
}

// An initiator or an acceptor. They have no common base class.
template <typename Engine>
void run(const FIX::SessionSettings& settings) {
  Application application;
  FIX::MemoryStoreFactory stores;
  Logs logs;
  Engine engine(application, stores, settings, logs);
  engine.start();
  tell("started");
  // The parent process has ended: no logout.
  if (!obey(application.session)) std::_Exit(0);
  engine.stop();
  tell("done");
}

}  // namespace

int main(int count, char** words) {
  // A write to a connection that was reset is an error to handle, not the end.
  std::signal(SIGPIPE, SIG_IGN);
  if (count != 3) {
    std::cerr << "usage: engine initiator|acceptor SETTINGS\n";
    return 2;
  }
  try {
    const FIX::SessionSettings settings(words[2]);
    if (std::string(words[1]) == "initiator") {
      run<FIX::SocketInitiator>(settings);
    } else {
      // The other acceptor drops a connection at its reset, with up to a receive window of unread messages.
      run<FIX::ThreadedSocketAcceptor>(settings);
    }
  } catch (const std::exception& error) {
    std::cerr << "engine: " << error.what() << "\n";
    return 1;
  }
}
