// Package invitev1 is the frames of a join connection, and the stored invite.
package invitev1
