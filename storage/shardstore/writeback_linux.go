package shardstore

import "golang.org/x/sys/unix"

// startWriteback asks the kernel to begin writing a range, without waiting, so
// that the disk works while the next bytes still come and the final sync finds
// little left. It promises nothing; only Sync does.
func (f diskFile) startWriteback(off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE) // a hint
}
