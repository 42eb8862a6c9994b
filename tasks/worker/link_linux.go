package worker

// mayLink says that a sandbox may get a hard link to stored content: Landlock
// and seccomp keep it from changing the file.
const mayLink = true
