// Package mount shows the snapshots of a vault as a read-only file system.
//
// Tree is that file system as a library: directories of snapshots by id, by
// time, by host, set and tag, and in them the trees. FS makes it an io/fs.FS,
// Mount a FUSE mount on Linux. Both read through a Source and keep only the
// entries of the directories that were looked at last; the bytes of files are
// kept by the Source and by the kernel.
//
// The FUSE server runs in the process of the command, not in the peer: the mount
// belongs to the user who made it and ends with the command, a process that
// hangs on it holds up nothing else, and the peer needs neither /dev/fuse nor
// the kernel's trust. What it reads comes over the control socket.
package mount
