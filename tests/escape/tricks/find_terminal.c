/* Opens the caller's terminal by its name. */
#include "../escape.h"

TRICK(find_terminal) {
    TRY(open(told("ESC_TERMINAL"), O_RDWR | O_NOCTTY));
    return escaped("open(/dev/pts/N)");
}
