// `postern-proxy redirect install|remove|check`, for the init container and for people.
#pragma once

namespace postern {

// argv[0] is "redirect". Returns the exit status: 0 done, 1 failed (or check found differences), 2 bad arguments.
int redirect_main(int argc, char** argv);

}  // namespace postern
