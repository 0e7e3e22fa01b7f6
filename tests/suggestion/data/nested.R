# The data of nested.csv: casks within batches, two measurements of each (R 4.2).
set.seed(14)
d <- expand.grid(repeat_ = 1:2, cask = letters[1:3], batch = LETTERS[1:10])
b <- rnorm(10, 0, 1.3)
k <- rnorm(30, 0, 2.9)
d$strength <- round(60 + b[as.integer(d$batch)] + k[as.integer(interaction(d$cask, d$batch))] + rnorm(60, 0, .8), 1)
write.csv(d[, c("strength", "batch", "cask")], "nested.csv", row.names = FALSE, quote = FALSE)
