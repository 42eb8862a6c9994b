package main

import "testing"

// TestRemoveSaysWhy: who may remove whom is told in advance and in words, and a
// few letters do not mean somebody.
func TestRemoveSaysWhy(t *testing.T) {
	ctx := testContext(t)
	g := newGrid(t)
	you, friends := grow(ctx, t, g, 1)
	friend := friends[0]
	admin := newHome(t, "--name", "admin")
	gotong(ctx, t, "", append([]string{"join", invitation(ctx, t, you, "--admin")}, admin...)...).want(t, 0)
	up(t, admin[1])
	if err := g.WaitAlive(ctx, friend, 3); err != nil {
		t.Fatal(err)
	}
	at := func(home string, args ...string) said {
		t.Helper()
		return gotong(ctx, t, "", append([]string{"--home", home}, args...)...)
	}
	at(admin[1], "remove", "you").want(t, 13, "the founder of the grid can only leave by itself")
	at(admin[1], "remove", "--owner", "you").want(t, 13, "the founder of the grid can only leave by itself")
	for _, args := range [][]string{{"remove", "admin"}, {"remove", "--dry-run", "admin"}} {
		at(friend.Home, args...).want(t, 13, "only an admin, the inviter", "nothing was changed")
	}
	at(friend.Home, "invite", "--admin").want(t, 13, "only an admin can invite an admin")
	at(you.Home, "remove", friend.ID[:1]).want(t, 2, "no peer is called")
	at(you.Home, "remove", friend.ID[:7]).want(t, 2, "no peer is called")
	at(you.Home, "remove", "--dry-run", friend.ID[:8]).want(t, 0, "Would remove friend-1")
	at(you.Home, "remove", "you").want(t, 2, "gotong leave")
	at(admin[1], "remove", friend.Name).want(t, 0, "Removed friend-1")
	at(admin[1], "remove", friend.Name).want(t, 13, "friend-1 is no member any more")

	again := func() said { // another device of the removed peer's owner
		return gotong(ctx, t, friend.Phrase, append([]string{"join", invitation(ctx, t, you)}, newHome(t, "--phrase-file", "-", "--name", "device")...)...)
	}
	again().want(t, 0)
	at(you.Home, "remove", "--owner", "device").want(t, 0, "Removed device")
	again().want(t, 13, "the owner of this recovery phrase was removed from the grid", "without --phrase-file")
}
