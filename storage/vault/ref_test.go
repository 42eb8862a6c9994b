package vault

import (
	"encoding/binary"
	"testing"

	"gotong/grid/blake3"
)

// TestListsOfLists builds the lists of a file of a few terabytes and of others
// and walks them back.
func TestListsOfLists(t *testing.T) {
	for _, count := range []int{0, 1, 2, listMin, listMax, listMax + 1, 100_000, 3_000_000} {
		blobs := map[[32]byte][]byte{}
		b := listBuilder{
			blobID: func(h [32]byte) BlobID { return BlobID(h) },
			put: func(list []byte) ([32]byte, error) {
				h := blake3.Sum256(list)
				blobs[h] = append([]byte(nil), list...)
				return h, nil
			},
		}
		leaf := func(i int) (h [32]byte) {
			binary.LittleEndian.PutUint64(h[:], uint64(i)*0x9e3779b97f4a7c15)
			return h
		}
		for i := range count {
			if err := b.add(0, leaf(i), uint64(i%1000+1)); err != nil {
				t.Fatal(err)
			}
		}
		root, err := b.finish()
		if err != nil {
			t.Fatal(err)
		}
		next := 0
		var walk func(Ref)
		walk = func(ref Ref) {
			if ref.Size == 0 {
				return
			}
			if ref.Depth == 0 {
				if ref.Hash != leaf(next) || ref.Size != uint64(next%1000+1) {
					t.Fatalf("leaf %d is %x of %d bytes", next, ref.Hash[:8], ref.Size)
				}
				next++
				return
			}
			children, err := parseList(blobs[ref.Hash], ref.Depth, ref.Size)
			if err != nil {
				t.Fatal(err)
			}
			for _, child := range children {
				walk(child)
			}
		}
		walk(root)
		if next != count {
			t.Errorf("%d of %d leaves came back", next, count)
		}
		if count == 3_000_000 && root.Depth != 2 {
			t.Errorf("depth %d", root.Depth)
		}
	}
}
