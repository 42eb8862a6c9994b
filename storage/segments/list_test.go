package segments_test

import "testing"

// TestVaultIsListed: all members are asked, and one that is
// away keeps no other from answering.
func TestVaultIsListed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFriends(t, 6)
		s := f.open(fourOfSix)
		put := f.mustPut(s, randomBytes(1<<20))
		f.absent[f.list[2].peer] = true
		found, failed := 0, 0
		for id, err := range s.List(t.Context(), f.vault) {
			if err != nil {
				failed++
			} else if id == put.ID {
				found++
			}
		}
		if found < 3 || failed != 2 { // the device has no store
			t.Errorf("found %d times, %d failed", found, failed)
		}
	})
}
