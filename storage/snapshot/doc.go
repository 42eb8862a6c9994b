// Package snapshot turns directory trees into snapshots of a vault and back.
//
// Backup walks the paths in a fixed order, reads several files at once, and
// skips content that did not change since the last backup, by a state file that
// is read along with the walk. A snapshot holds the paths as they are on the
// machine, from "/" down.
//
// Restore writes below one directory and nowhere else: every step goes through
// os.Root or a descriptor inside it, symbolic links are never followed, and
// names that are no plain path element are refused. A file appears under its
// name only when all of it is there.
package snapshot
