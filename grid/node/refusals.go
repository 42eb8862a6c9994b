package node

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/segments"
)

// refusals are the friends who took less of a backup than their part because
// they have no room for this owner, or because they said so: waiting does not
// help against that.
type refusals struct {
	mu    sync.Mutex
	words map[grid.PeerID]string
}

func (r *refusals) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.words = nil
}

func (r *refusals) add(failed []segments.PeerError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range failed {
		word := ""
		switch {
		case errors.Is(f.Err, storage.ErrQuota), errors.Is(f.Err, storage.ErrFull):
			word = noRoom
		case errors.Is(f.Err, storage.ErrDenied):
			word = denied
		default:
			continue
		}
		if r.words == nil {
			r.words = map[grid.PeerID]string{}
		}
		r.words[f.Peer] = word
	}
}

// text names them by reason; empty when there is none.
func (r *refusals) text(nameOf func(grid.PeerID) string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	groups := map[string][]string{}
	for peer, word := range r.words {
		groups[word] = append(groups[word], nameOf(peer))
	}
	var out []string
	for _, word := range slices.Sorted(maps.Keys(groups)) {
		slices.Sort(groups[word])
		out = append(out, word+": "+strings.Join(groups[word], ", "))
	}
	return strings.Join(out, "; ")
}
