package storage_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"gotong/storage"
)

// drawLinks makes a tree of heads as devices of rising epochs could sign it,
// and gives them in any order.
func drawLinks(t *rapid.T) []storage.HeadLink[int] {
	count := rapid.IntRange(1, 30).Draw(t, "heads")
	links := make([]storage.HeadLink[int], 0, count)
	for i := range count {
		l := storage.HeadLink[int]{ID: storage.HeadID{byte(i + 1)}, Seq: 1, Epoch: 1, Body: i}
		if i > 0 && rapid.IntRange(0, 9).Draw(t, "new chain") > 0 {
			prev := links[max(0, i-1-rapid.SampledFrom([]int{0, 0, 0, 0, 1, 3}).Draw(t, "back"))]
			l.Prev, l.Seq = prev.ID, prev.Seq+1
			l.Epoch = prev.Epoch + rapid.SampledFrom([]uint32{0, 0, 0, 0, 1}).Draw(t, "epoch")
		}
		links = append(links, l)
	}
	return rapid.Permutation(links).Draw(t, "order")
}

func newer(a, b storage.HeadLink[int]) bool {
	return a.Epoch > b.Epoch || a.Epoch == b.Epoch && a.Seq > b.Seq
}

// TestHeadChain: whatever comes in whatever order, the chain stays a chain, its
// end never moves back, and nothing that was taken is lost.
func TestHeadChain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var chain storage.HeadChain[int]
		taken := map[storage.HeadID]bool{}
		for _, l := range drawLinks(rt) {
			before := chain.Clone()
			verdict, err := chain.Judge(l)
			switch verdict {
			case storage.HeadPlaced:
				chain.Place(l)
				taken[l.ID] = true
			case storage.HeadFork:
				chain.AddFork(l)
				taken[l.ID] = true
			}
			if (verdict == storage.HeadFork) != errors.Is(err, storage.ErrHeadFork) || verdict == storage.HeadPlaced && err != nil {
				rt.Fatalf("verdict %v with %v", verdict, err)
			}
			checkChain(rt, &chain, taken)
			if old := before.Links(); len(old) > 0 && newer(old[len(old)-1], chain.Links()[len(chain.Links())-1]) {
				rt.Fatal("the end of the chain moved back")
			}
			if again, err := chain.Judge(l); taken[l.ID] && (again != storage.HeadSkipped || err != nil) {
				rt.Fatalf("the same head again: %v, %v", again, err)
			}
		}
		kept := chain.Keep(func(storage.HeadLink[int], []storage.HeadLink[int]) bool { return false })
		if kept.Len() != 1 || kept.Links()[0] != chain.Links()[len(chain.Links())-1] {
			rt.Fatal("the newest head does not stay")
		}
	})
}

func checkChain(t *rapid.T, chain *storage.HeadChain[int], taken map[storage.HeadID]bool) {
	links := chain.Links()
	for i := 1; i < len(links); i++ {
		a, b := links[i-1], links[i]
		if b.Seq <= a.Seq || b.Epoch < a.Epoch || b.Seq == a.Seq+1 && b.Prev != a.ID {
			t.Fatalf("%+v before %+v", a, b)
		}
	}
	seen := map[storage.HeadID]bool{}
	for _, l := range append(chain.Forks(), links...) {
		if seen[l.ID] || !taken[l.ID] {
			t.Fatalf("head %v is there twice, or was never taken", l.ID[0])
		}
		seen[l.ID] = true
	}
	if len(seen) != len(taken) || chain.Len() != len(taken) {
		t.Fatalf("%d heads taken, %d kept", len(taken), len(seen))
	}
}

// TestHistoryIsWhole: page by page everything that is kept comes, once, from the
// newest to the oldest.
func TestHistoryIsWhole(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var chain storage.HeadChain[int]
		for _, l := range drawLinks(rt) {
			switch verdict, _ := chain.Judge(l); verdict {
			case storage.HeadPlaced:
				chain.Place(l)
			case storage.HeadFork:
				chain.AddFork(l)
			}
		}
		size := rapid.SampledFrom([]int{1, storage.MaxHeadLinkBytes / 3, 2 * storage.MaxHeadLinkBytes}).Draw(rt, "size")
		var below storage.HeadCursor
		seen := 0
		for page := chain.Below(below, func(int) int { return size }); len(page) > 0; page = chain.Below(below, func(int) int { return size }) {
			if len(page) > max(1, storage.MaxHeadLinkBytes/size) {
				rt.Fatalf("page of %d heads of %d bytes", len(page), size)
			}
			for _, l := range page {
				at := storage.HeadCursor{Seq: l.Seq, ID: l.ID}
				if !below.IsZero() && at.Compare(below) >= 0 {
					rt.Fatal("heads out of order")
				}
				below = at
				seen++
			}
		}
		if seen != chain.Len() {
			rt.Fatalf("%d of %d heads", seen, chain.Len())
		}
	})
}

func TestNewestLinksAreBounded(t *testing.T) {
	var chain storage.HeadChain[int]
	for i := range 200 {
		chain.Place(storage.HeadLink[int]{ID: storage.HeadID{byte(i), 1}, Prev: storage.HeadID{byte(i - 1), 1}, Seq: uint64(i + 1)})
	}
	for size, want := range map[int]int{1: storage.MaxHeadLinks, storage.MaxHeadLinkBytes / 10: 10, storage.MaxHeadLinkBytes: 1, 2 * storage.MaxHeadLinkBytes: 1} {
		links := chain.Newest(func(int) int { return size })
		if len(links) != want || links[len(links)-1].Seq != 200 {
			t.Errorf("%d links of %d bytes, want %d", len(links), size, want)
		}
	}
}
