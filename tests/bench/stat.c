// What a probe is measured against: one `stat`, one clock read, and a verdict by the file's age alone.
#include <sys/stat.h>
#include <time.h>

int main(int count, char **words) {
    struct stat found;
    if (count != 2 || stat(words[1], &found) != 0) return 1;
    return time(0) - found.st_mtime > 60;
}
