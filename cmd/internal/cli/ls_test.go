package cli

import "testing"

func TestPermissions(t *testing.T) {
	for mode, want := range map[uint32]string{
		0: "---------", 0o644: "rw-r--r--", 0o4755: "rwsr-xr-x", 0o2711: "rwx--s--x", 0o1777: "rwxrwxrwt", 0o7000: "--S--S--T",
	} {
		if got := permissions(mode); got != want {
			t.Errorf("%04o is %q, want %q", mode, got, want)
		}
	}
}
