// Package gridv1 is what members ask each other to agree on who is a member and how
// to reach them.
package gridv1
