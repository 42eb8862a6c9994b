package segments

import (
	"os"
	"testing"

	"gotong/storage"
)

// DamageSpool flips a bit of a segment in a spool.
func DamageSpool(t testing.TB, p *Spool, id storage.SegmentID) {
	data, err := os.ReadFile(p.path(id))
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] ^= 1
	}
	if err := os.WriteFile(p.path(id), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
