package segments

import (
	"bytes"
	"os"
	"testing"

	"gotong/storage"
)

// TestSpoolWhileWritten: a segment that is being written is neither given out
// nor lost by that; removed meanwhile, it leaves no file that nobody counts.
func TestSpoolWhileWritten(t *testing.T) {
	dir, data := t.TempDir(), []byte("a segment")
	p, err := OpenSpool(SpoolConfig{Dir: dir, Bytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	kept, removed := storage.SegmentID{1}, storage.SegmentID{2}
	for _, id := range []storage.SegmentID{kept, removed} {
		if !p.reserve(id, int64(len(data))) {
			t.Fatal("no room")
		}
		if _, ok := p.get(id, nil); ok || !p.Has(id) {
			t.Errorf("given out %v, counted %v", ok, p.Has(id))
		}
	}
	p.Remove(removed)
	for _, id := range []storage.SegmentID{kept, removed} {
		if err := p.write(id, data); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := p.get(kept, nil); !ok || !bytes.Equal(got, data) {
		t.Errorf("%q %v", got, ok)
	}
	files, err := os.ReadDir(dir)
	if st := p.Stats(); err != nil || len(files) != 1 || st.Segments != 1 || st.Bytes != int64(len(data)) {
		t.Errorf("%d files, %+v, %v", len(files), st, err)
	}
}
