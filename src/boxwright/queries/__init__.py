"""Query heads: tokens, selection, matching, denoising, criterion, decoding."""
