package snapshot

import (
	"os"

	"golang.org/x/sys/unix"

	vaultv1 "gotong/proto/vault/v1"
)

// makeNode makes a fifo or a device in an open directory.
func makeNode(dir *os.File, name string, node *vaultv1.Node) error {
	kind := map[vaultv1.Node_Type]uint32{
		vaultv1.Node_FIFO:             unix.S_IFIFO,
		vaultv1.Node_CHARACTER_DEVICE: unix.S_IFCHR,
		vaultv1.Node_BLOCK_DEVICE:     unix.S_IFBLK,
	}[node.Type]
	return unix.Mknodat(int(dir.Fd()), name, kind|0o600, int(unix.Mkdev(node.DeviceMajor, node.DeviceMinor)))
}
