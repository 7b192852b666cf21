/* Takes a message of a System V queue of the host. */
#include "../escape.h"

TRICK(message_queue) {
    struct { long type; char text[64]; } message;
    int queue = msgget(0x52460002, 0);
    TRY(queue);
    TRY(msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT));
    return escaped("msgrcv");
}
