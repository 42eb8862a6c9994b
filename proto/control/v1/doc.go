// Package controlv1 is what the commands of a machine ask of its peer.
package controlv1
