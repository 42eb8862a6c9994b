package roster

import (
	"slices"

	"gotong/grid"
)

// Left reports whether a removed peer took itself out.
func (v *View) Left(id grid.PeerID) bool {
	return v.out.removed(id) && slices.ContainsFunc(v.out.x.removals, func(s *statement) bool {
		return s.author == id && s.removal.peer == id
	})
}
