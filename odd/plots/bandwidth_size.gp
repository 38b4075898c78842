# gnuplot bandwidth_size.gp draws bandwidth_size.svg from bandwidth_size.tsv
ep_name = 'bandwidth_size'
array ep_title[1]
ep_title[1] = 'Dispatch bandwidth against bytes per rank'
array ep_sub[6]
ep_sub[1] = 'Measured; physical GB/s of the busiest rank over the'
ep_sub[2] = 'exchange time; uniform routing, bf16, hidden 1024, 16'
ep_sub[3] = 'experts, barrier, warm buffers, thp pages.'
ep_sub[4] = 'On planted: <b>&A_b^{c}</b> ]]  "q" ''s'' `touch pwned`'
ep_sub[5] = '$(touch pwned) é'
ep_sub[6] = 'next\; 4 ranks on 1 node.'
array ep_series[2]
ep_series[1] = 'alltoallv, pairwise (bytes: copies)'
ep_series[2] = 'alltoallv-dedup, pairwise (bytes: rank-dedup)'
ep_x_label = 'bytes in or out of the busiest rank'
ep_y_label = 'GB/s (physical)'
ep_x_step = 4
# SPDX-License-Identifier: Apache-2.0
# The look of every figure: size, fonts, colours, header, legend. Comes before each figure's own script;
# before it stand the texts of the run at hand (ep_name, ep_title, ep_sub, ...) and nothing else.
# Width 440 at font 13 and more: in a page 360 px wide letters are still about 10 px high.
ep_w = 440
ep_font = 'sans-serif'
ep_head = 14 + 23 * |ep_title| + 17 * |ep_sub|
set encoding utf8
set datafile separator tab
set datafile commentschars ''
set datafile columnheaders
# Okabe and Ito's colours, each with a point shape and a dash of its own.
set linetype 1 lc rgb '#0072B2' pt 7 ps 0.7 lw 2 dt 1
set linetype 2 lc rgb '#D55E00' pt 5 ps 0.65 lw 2 dt (9,4)
set linetype 3 lc rgb '#009E73' pt 9 ps 0.9 lw 2 dt (3,3)
set linetype 4 lc rgb '#CC79A7' pt 13 ps 0.9 lw 2 dt (12,3,3,3)
set linetype 5 lc rgb '#E69F00' pt 11 ps 0.9 lw 2 dt (16,4)
set linetype 6 lc rgb '#56B4E9' pt 4 ps 0.75 lw 2 dt (6,2,2,2,2,2)
set linetype 7 lc rgb '#000000' pt 6 ps 0.75 lw 2 dt (2,4)
set linetype cycle 7
set style line 100 lc rgb '#dddddd' lw 0.6 dt 1
set grid xtics ytics ls 100
set border 3 lw 0.8 lc rgb '#333333'
set tics nomirror out scale 0.5 font ep_font.',14'
set xtics offset 0,0.35
set key font ep_font.',14' samplen 2.4 spacing 1.1 Left reverse vertical maxcols 1
# Pixels from the left and the top, as fractions of the drawing.
sx(pixels) = real(pixels) / ep_w
sy(pixels) = 1 - real(pixels) / ep_h
series(i, x) = column('series') == i ? x : NaN
# Evaluated by a figure's script once it has set ep_h.
ep_open = "set terminal svg size ep_w,ep_h dynamic font ep_font.',15' noenhanced linewidth 1.1 name ep_name background rgb 'white'; set output ep_name.'.svg'; do for [ep_i = 1:|ep_title|] { set label ep_i ep_title[ep_i] at screen sx(10),sy(22 + 23 * (ep_i - 1)) left font ep_font.',18' }; do for [ep_i = 1:|ep_sub|] { set label 100 + ep_i ep_sub[ep_i] at screen sx(10),sy(18 + 23 * |ep_title| + 17 * (ep_i - 1)) left font ep_font.',13' tc rgb '#333333' }"
# Ticks of bytes: powers of 2, ep_x_step apart.
bytes(x) = x < 2**10 ? sprintf('%.0f B', x) : x < 2**20 ? sprintf('%.0f KiB', x / 2.0**10) : x < 2**30 ? sprintf('%.0f MiB', x / 2.0**20) : sprintf('%.0f GiB', x / 2.0**30)
ep_byte_tics = "set xtics (); do for [ep_i = 0:50:int(log(ep_x_step) / log(2) + 0.5)] { set xtics add (bytes(2.0**ep_i) 2.0**ep_i) }"
# Place of the plot from ep_top to ep_bottom pixels below the top, and its y label.
ep_place = "set tmargin at screen sy(ep_top); set bmargin at screen sy(ep_bottom); set lmargin at screen sx(74); set rmargin at screen sx(ep_w - 14); set label 300 ep_y_label at screen sx(16),sy((ep_top + ep_bottom) / 2.0) center rotate by 90 font ep_font.',14'"
# SPDX-License-Identifier: Apache-2.0
# Bandwidth against bytes per rank, one line per transport.
ep_top = ep_head + 21 * |ep_series| + 16
ep_bottom = ep_top + 310
ep_h = ep_bottom + 66
eval ep_open
eval ep_place
set key at screen sx(4),sy(ep_head) top left
set logscale x 2
eval ep_byte_tics
set xlabel ep_x_label offset 0,0.7
set yrange [0:*]
set offsets graph 0.05, graph 0.05, graph 0.08, 0
file = ep_name.'.tsv'
plot for [i = 1:|ep_series|] file using (series(i, column('h_rank_bytes'))):(column('bw_bytes_per_s') / 1e9) with lines lt i notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('h_rank_bytes'))):(column('bw_low_bytes_per_s') / 1e9):(0):(column('bw_high_bytes_per_s') / 1e9 - column('bw_low_bytes_per_s') / 1e9) with vectors heads size screen 0.009,90 lc i lw 1.4 dt 1 notitle, \
     for [i = 1:|ep_series|] file using (series(i, column('h_rank_bytes'))):(column('bw_bytes_per_s') / 1e9) with points lt i notitle, \
     for [i = 1:|ep_series|] NaN with linespoints lt i title ep_series[i]
