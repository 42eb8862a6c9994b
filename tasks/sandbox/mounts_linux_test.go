package sandbox

import "testing"

// TestSharesMounts: the last mount at the root decides.
func TestSharesMounts(t *testing.T) {
	const (
		private = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
		shared  = "28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
		slave   = "29 1 254:0 / / rw,relatime master:1 - ext4 /dev/vda rw\n"
		other   = "30 28 0:21 / /proc rw shared:5 - proc proc rw\n"
	)
	for table, want := range map[string]bool{
		private + other: false, shared + other: true, slave: false, private + shared: true, shared + private: false,
		"": false, "nonsense": false, "1 2 3 / / rw shared:1": true,
	} {
		if sharesMounts(table) != want {
			t.Errorf("%q: %v", table, !want)
		}
	}
}
